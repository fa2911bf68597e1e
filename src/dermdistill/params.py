"""What may stand in ``params.yaml``: names, types and ranges; anything else is refused in a sentence.

No field has a default, on purpose: every number that can change a result stands in ``params.yaml``,
where DVC sees it. This module therefore cannot change a result, and no stage lists it as a
dependency; the values themselves reach DVC through each stage's ``params:``.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dermdistill.errors import UserError

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Run(Block):
    teachers: Annotated[list[Name], Field(min_length=1)]
    students: Annotated[list[Name], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    baselines: Annotated[list[Literal["logistic", "forest", "boosting", "svm"]], Field(min_length=1)]


class Data(Block):
    height: Annotated[int, Field(ge=32)]
    width: Annotated[int, Field(ge=32)]


class Split(Block):
    seed: Seed
    val: Annotated[float, Field(gt=0, lt=1)]
    holdout: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def leaves_something_to_train_on(self) -> "Split":
        if self.val + self.holdout >= 1:
            raise ValueError("val and holdout together must stay below 1")
        return self


class Augment(Block):
    rotate: Annotated[float, Field(ge=0, le=180)]
    scale: Annotated[float, Field(ge=0, lt=1)]
    shift: Annotated[float, Field(ge=0, lt=1)]
    brightness: Annotated[float, Field(ge=0, lt=1)]
    contrast: Annotated[float, Field(ge=0, lt=1)]
    saturation: Annotated[float, Field(ge=0, le=1)]
    color_cast: Annotated[float, Field(ge=0, lt=1)]


class Train(Block):
    batch_size: Annotated[int, Field(ge=2)]  # batch norm needs two
    warmup_epochs: NotNegative
    weight_decay: NotNegative
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    clip_norm: Positive
    ema: Annotated[float, Field(ge=0, lt=1)]
    class_weights: Literal["none", "sqrt", "balanced", "effective"]
    focal_gamma: NotNegative
    sampling: Literal["each", "balanced"]
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    freeze_batch_norm: bool
    patience: Annotated[int, Field(ge=0)]
    augment: Augment


class Cut(Block):
    stages: Count
    blocks: Annotated[int, Field(ge=0)]
    head: Count


class Model(Block):
    arch: str
    weights: Literal["imagenet", "none"]
    cut: Cut | None
    epochs: Count
    lr: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    mixup: NotNegative


class Teacher(Model):
    seed: Seed


class KD(Block):
    teacher: Name
    temperature: Positive
    alpha: Share


class Int8Limits(Block):
    max_auc_drop: NotNegative
    max_ece_rise: NotNegative
    min_agreement: Share
    min_equal_decisions: Share
    max_bytes: Count
    max_saturating_weights: Annotated[int, Field(ge=0)]
    max_sum_error: Positive


Rung = Annotated[
    str, Field(pattern=r"^(naive|per_tensor|minmax|percentile|entropy|mixed_[1-9][0-9]*|weight_only|dynamic)$")
]


class Quantize(Block):
    calibration_images: Count
    sensitivity_images: Count
    seed: Seed
    ladder: Annotated[list[Rung], Field(min_length=1)]
    limits: Int8Limits
    timing_rounds: Count


class Calibrate(Block):
    sensitivity: Annotated[float, Field(gt=0, le=1)]
    coverage: Inside
    keep: Annotated[list[Inside], Field(min_length=1)]


class Evaluate(Block):
    bootstrap: Count
    bins: Count
    seed: Seed
    decision_thresholds: Annotated[list[Inside], Field(min_length=1)]
    screening_prevalence: Inside
    slice_minimum: Count


class Compare(Block):
    calibration_folds: Annotated[int, Field(ge=2)]
    dirichlet_penalty: NotNegative


class Robustness(Block):
    images: Count
    seed: Seed


class Baselines(Block):
    features: Literal["full", "quick"]
    train_images: Count | None
    logistic_c: Positive
    forest_trees: Count
    forest_min_leaf: Count
    boosting_rounds: Count
    boosting_lr: Positive
    svm_c: Positive
    seed: Seed


class Ship(Block):
    student: Name
    seed: Seed
    tolerance: Positive


class Export(Block):
    formats: list[Literal["onnx", "torch_export", "executorch", "executorch_int8"]]
    max_dp: Positive
    max_dp_unoptimised: Positive


class Benchmark(Block):
    rounds: Count
    batch_rounds: Count


class AnalyzeErrors(Block):
    high_confidence: Share
    panel_images: Count


class Params(Block):
    run: Run
    data: Data
    split: Split
    train: Train
    teachers: dict[Name, Teacher]
    students: dict[Name, Model]
    kd: KD
    quantize: Quantize
    calibrate: Calibrate
    evaluate: Evaluate
    compare: Compare
    ship: Ship
    export: Export
    benchmark: Benchmark
    analyze_errors: AnalyzeErrors
    robustness: Robustness
    baselines: Baselines

    @model_validator(mode="after")
    def names_exist(self) -> "Params":
        for name in self.run.teachers:
            _require(name, self.teachers, "run.teachers", "teachers")
        for name in self.run.students:
            _require(name, self.students, "run.students", "students")
        _require(self.kd.teacher, self.run.teachers, "kd.teacher", "run.teachers")
        _require(self.ship.student, self.run.students, "ship.student", "run.students")
        if self.ship.seed not in self.run.seeds:
            raise ValueError(f"ship.seed {self.ship.seed} is not one of run.seeds {self.run.seeds}")
        return self

    def teacher(self, name: str) -> Teacher:
        """The block of one teacher."""
        return _pick(self.teachers, name, "teachers")

    def student(self, name: str) -> Model:
        """The block of one student."""
        return _pick(self.students, name, "students")

    @property
    def shipped(self) -> str:
        """Id of the INT8 model that goes on the phone."""
        return f"int8_{self.ship.student}_s{self.ship.seed}"

    def baseline_ids(self) -> list[str]:
        """The classical models that stand beside the networks."""
        return [f"baseline_{name}" for name in self.run.baselines]

    def model_ids(self) -> list[str]:
        """Every network of this run in the order of the story: teachers, students, controls, INT8."""
        pairs = [(name, seed) for name in self.run.students for seed in self.run.seeds]
        students = [f"{kind}_{name}_s{seed}" for kind in ("student", "control", "int8") for name, seed in pairs]
        return [f"teacher_{name}" for name in self.run.teachers] + students


def _pick(blocks: dict[str, Any], name: str, where: str) -> Any:
    if name not in blocks:
        raise UserError(f"params.yaml has no {name!r} under {where}, only {', '.join(blocks)}")
    return blocks[name]


def _require(name: str, known: object, where: str, among: str) -> None:
    names = list(known)  # type: ignore[call-overload]
    if name not in names:
        raise ValueError(f"{where} names {name!r}, which is not in {among} ({', '.join(names)})")


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check the whole file.

    Raises:
        UserError: listing every unknown name (with the nearest known one), wrong type and value out of range.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run from the top folder of the repository") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_sentence(item, content) for item in error.errors())
        raise UserError(f"{path}: {problems}") from None


def _sentence(item: object, content: object) -> str:
    kind, where, message = (item[key] for key in ("type", "loc", "msg"))  # type: ignore[index]
    name = ".".join(map(str, where)).replace(".[key]", "")
    if kind == "extra_forbidden":
        return f"unknown parameter {name}{_suggestion(where)}"
    if kind == "missing":
        return f"parameter {name} is missing"
    message = message.removeprefix("Value error, ")
    value = item["input"]  # type: ignore[index]
    given = f", not {value!r}" if isinstance(value, str | int | float) else ""
    lowered = message[0].lower() + message[1:]
    return f"{name}: {lowered}{given}" if name else message


def _suggestion(where: tuple[str | int, ...]) -> str:
    block: object = Params
    for part in where[:-1]:
        fields = getattr(block, "model_fields", {})
        annotation = fields[part].annotation if part in fields else block
        block = {"teachers": Teacher, "students": Model}.get(str(part), annotation)
    close = difflib.get_close_matches(str(where[-1]), getattr(block, "model_fields", {}), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
