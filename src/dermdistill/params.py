"""What may stand in ``params.yaml``: names, types and ranges; anything else is refused in a sentence.

No field has a default, on purpose: every number that can change a result stands in ``params.yaml``,
where DVC sees it, through each stage's ``params:``. No stage lists this module as a dependency. What it
derives must therefore stay names, one weight (``KD.beta``) and one count (``Predict.passes``): whoever changes how
these follow from the values forces the stages that use them, since DVC will not.
"""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from dermdistill.blocks import (
    KD,
    Ablation,
    AnalyzeErrors,
    Audit,
    Baselines,
    Benchmark,
    Block,
    Calibrate,
    Compare,
    Count,
    Data,
    Evaluate,
    Explain,
    Export,
    Name,
    NotNegative,
    Positive,
    Predict,
    Proportion,
    Quantize,
    Robustness,
    Run,
    Seed,
    Ship,
    Split,
)
from dermdistill.errors import UserError

ENSEMBLE = "teacher_ensemble"  # id of the mean of several teachers
DEGENERATE = {  # ways to distil that lose what they are with melanoma or not
    "ls": "standardised, two logits are always 1 and −1",
    "dkd": "beside the true class there is but one, which is kd",
    "dist": "of an image, two probabilities that sum to 1 correlate fully",
}
RENAMED = {  # what a parameter of an older params.yaml is called now
    "views": "num_views",
    "ladder": "candidates",
    "max_saturating_weights": "max_overflowing_weights",
    "slice_minimum": "subgroup_minimum",
}
WEIGHTS_FILE = r".+\.(safetensors|pt|pth)@[0-9a-f]{64}"  # the hash tells DVC and us of any change


class Augment(Block):
    rotate: Annotated[float, Field(ge=0, le=180)]
    scale: Annotated[float, Field(ge=0, lt=1)]
    shift: Annotated[float, Field(ge=0, lt=1)]
    brightness: Annotated[float, Field(ge=0, lt=1)]
    contrast: Annotated[float, Field(ge=0, lt=1)]
    saturation: Annotated[float, Field(ge=0, le=1)]
    color_cast: Annotated[float, Field(ge=0, lt=1)]
    hair: Annotated[int, Field(ge=0, le=50)]
    blur: NotNegative
    erase: Proportion
    stretch: Annotated[float, Field(ge=0, lt=1)]
    gamma: Annotated[float, Field(ge=0, lt=1)]
    vignette: Proportion
    jpeg: Annotated[int, Field(ge=0, le=95)]


class Devices(Block):
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
    compile: bool


class Train(Block):
    task: Literal["diagnosis", "melanoma"]
    batch_size: Annotated[int, Field(ge=2)]  # batch norm needs two
    warmup_epochs: NotNegative
    weight_decay: NotNegative
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    clip_norm: Positive
    ema: Annotated[float, Field(ge=0, lt=1)]
    class_weights: Literal["none", "sqrt", "balanced", "effective"]
    focal_gamma: NotNegative
    focal_alpha: Proportion | None
    sampling: Literal["each", "balanced"]
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    freeze_batch_norm: bool
    frozen_stages: Annotated[int, Field(ge=0)]
    patience: Annotated[int, Field(ge=0)]
    augment: Augment
    devices: Devices

    @model_validator(mode="after")
    def alpha_has_two_classes(self) -> "Train":
        if self.focal_alpha is not None and self.task != "melanoma":
            raise ValueError("focal_alpha weighs melanoma against the rest; set it to null or task to melanoma")
        return self


class Cut(Block):
    stages: Count
    blocks: Annotated[int, Field(ge=0)]
    head: Count


class Model(Block):
    arch: str
    weights: str
    cut: Cut | None
    epochs: Count
    lr: Positive
    size: Annotated[list[Annotated[int, Field(ge=16)]], Field(min_length=2, max_length=2)] | None
    dropout: Annotated[float, Field(ge=0, lt=1)]
    drop_path: Annotated[float, Field(ge=0, lt=1)]
    mixup: NotNegative
    keep: Literal["best", "last"]

    @field_validator("weights")
    @classmethod
    def are_known_or_named_by_their_hash(cls, weights: str) -> str:
        if weights not in ("imagenet", "none") and not re.fullmatch(WEIGHTS_FILE, weights):
            raise ValueError("must be imagenet, none, or FILE@SHA256 of a .safetensors, .pt or .pth file (sha256sum)")
        return weights


class Teacher(Model):
    seed: Seed
    fold: Annotated[int, Field(ge=0)] | None


class Params(Block):
    run: Run
    data: Data
    audit: Audit
    split: Split
    train: Train
    teachers: dict[Name, Teacher]
    students: dict[Name, Model]
    kd: KD
    ablation: Ablation
    predict: Predict
    quantize: Quantize
    calibrate: Calibrate
    evaluate: Evaluate
    compare: Compare
    ship: Ship
    export: Export
    benchmark: Benchmark
    analyze_errors: AnalyzeErrors
    explain: Explain
    robustness: Robustness
    baselines: Baselines

    @model_validator(mode="after")
    def names_exist(self) -> "Params":
        for name in self.run.teachers:
            _require(name, self.teachers, "run.teachers", "teachers")
        for name in self.run.students:
            _require(name, self.students, "run.students", "students")
        for name in self.kd.teachers:
            _require(name, self.run.teachers, "kd.teachers", "run.teachers")
        self._require_folds()
        mixed = [name for name in self.run.students if self.students[name].mixup]
        if mixed and self.kd.num_views:
            raise ValueError(
                f"kd.num_views {self.kd.num_views} stores targets of single images, but student {mixed[0]} sees mixed "
                "ones; set its mixup to 0, or kd.num_views to 0"
            )
        if mixed and self.kd.method == "dkd":
            raise ValueError(f"kd.method dkd needs one true class an image; set mixup of student {mixed[0]} to 0")
        if self.train.task == "melanoma" and (why := DEGENERATE.get(self.kd.method)):
            raise ValueError(f"kd.method {self.kd.method} degenerates with two classes: {why}; set kd.method to kd")
        if self.kd.method == "feature" and self.train.layer_decay < 1:
            raise ValueError("kd.method feature trains a projection beside the layers; set train.layer_decay to 1")
        _require(self.ship.student, self.run.students, "ship.student", "run.students")
        if self.ship.seed not in self.run.seeds:
            raise ValueError(f"ship.seed {self.ship.seed} is not one of run.seeds {self.run.seeds}")
        return self

    def _require_folds(self) -> None:
        for name, teacher in self.teachers.items():
            if teacher.fold is not None and teacher.fold >= self.split.folds and name in self.run.teachers:
                raise ValueError(f"teachers.{name}.fold is {teacher.fold}, but split.folds is {self.split.folds}")
        if self.kd.crossfit:
            folds = [self.teachers[name].fold for name in self.kd.teachers]
            if None in folds or set(folds) != set(range(self.split.folds)):
                raise ValueError(
                    f"kd.crossfit needs teachers that each leave out a fold, and every fold of split.folds "
                    f"{self.split.folds} left out by one; those of kd.teachers leave out {folds}"
                )

    def teacher(self, name: str) -> Teacher:
        """The block of one teacher."""
        return _pick(self.teachers, name, "teachers")

    def student(self, name: str) -> Model:
        """The block of one student."""
        return _pick(self.students, name, "students")

    @property
    def teacher_id(self) -> str:
        """Id of whom the students learn from: one teacher, or the mean of several."""
        return f"teacher_{self.kd.teachers[0]}" if len(self.kd.teachers) == 1 else ENSEMBLE

    @property
    def shipped(self) -> str:
        """Id of the INT8 model that goes on the phone."""
        return f"int8_{self.ship.student}_s{self.ship.seed}"

    def corrupted_ids(self) -> list[str]:
        """The networks that are evaluated on corrupted images: teacher (or their mean), student and deployed model."""
        return [self.teacher_id, f"student_{self.ship.student}_s{self.ship.seed}", self.shipped]

    def baseline_ids(self) -> list[str]:
        """The classical models that stand beside the networks."""
        return [f"baseline_{name}" for name in self.run.baselines]

    def model_ids(self) -> list[str]:
        """Every network of this run in the order of the story: teachers, their mean, students, controls, INT8."""
        pairs = [(name, seed) for name in self.run.students for seed in self.run.seeds]
        students = [f"{kind}_{name}_s{seed}" for kind in ("student", "control", "int8") for name, seed in pairs]
        teachers = [f"teacher_{name}" for name in self.run.teachers]
        return list(dict.fromkeys([*teachers, self.teacher_id])) + students

    def evaluated_ids(self) -> list[str]:
        """Every model of this run: networks, then baselines."""
        return self.model_ids() + self.baseline_ids()

    def single_ids(self) -> list[str]:
        """Every model that is one model and no mean of several: those that a stage of their own makes."""
        return [model_id for model_id in self.evaluated_ids() if model_id != ENSEMBLE]


def _pick(blocks: dict[str, Any], name: str, where: str) -> Any:
    if name not in blocks:
        raise UserError(f"params.yaml has no {name!r} under {where}, only {', '.join(blocks)}")
    return blocks[name]


def _require(name: str, allowed: object, where: str, among: str) -> None:
    names = list(allowed)  # type: ignore[call-overload]
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
    return check(content, path)


def check(content: Any, name: str | Path) -> Params:
    """What a parsed file holds; ``name`` is what an error calls it, errors as in :func:`load`."""
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_sentence(item, content) for item in error.errors())
        raise UserError(f"{name}: {problems}") from None


def _sentence(item: object, content: object) -> str:
    kind, where, message = (item[key] for key in ("type", "loc", "msg"))  # type: ignore[index]
    name = ".".join(map(str, where)).replace(".[key]", "")
    if kind == "extra_forbidden":
        return f"unknown parameter {name}{_suggestion(where)}"
    if kind == "missing":
        return f"parameter {name} is missing"
    message = message.removeprefix("Value error, ")
    value = item["input"]  # type: ignore[index]
    value_text = f", not {value!r}" if isinstance(value, str | int | float) else ""
    lowered = message[0].lower() + message[1:]
    return f"{name}: {lowered}{value_text}" if name else message


def _suggestion(where: tuple[str | int, ...]) -> str:
    block: object = Params
    for part in where[:-1]:
        fields = getattr(block, "model_fields", {})
        annotation = fields[part].annotation if part in fields else block
        block = {"teachers": Teacher, "students": Model}.get(str(part), annotation)
    fields, name = getattr(block, "model_fields", {}), str(where[-1])
    renamed = [RENAMED[name]] if RENAMED.get(name) in fields else []
    close = renamed or difflib.get_close_matches(name, fields, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
