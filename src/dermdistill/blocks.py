"""What the blocks of ``params.yaml`` are made of: all but those of a training, which stand in ``params``."""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Proportion = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Method = Literal["kd", "ls", "dkd", "dist", "at", "feature"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


def each_once(values: list[Any]) -> list[Any]:
    """A seed given twice would count as two trainings, a teacher as two votes."""
    if len(set(values)) < len(values):
        raise ValueError(f"names one twice: {', '.join(map(str, values))}")
    return values


Listed = (Field(min_length=1), AfterValidator(each_once))  # one or more, no two alike
Names = Annotated[list[Name], *Listed]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Run(Block):
    teachers: Names
    students: Names
    seeds: Annotated[list[Seed], *Listed]
    baselines: Annotated[list[Literal["logistic", "forest", "boosting", "svm"]], *Listed]


class Data(Block):
    height: Annotated[int, Field(ge=32)]
    width: Annotated[int, Field(ge=32)]
    other: Annotated[list[Name], AfterValidator(each_once)]


class Audit(Block):
    votes: Count
    hash_distance: Annotated[int, Field(ge=0, le=12)]  # more bits make bands that nearly everything shares
    inliers: Annotated[int, Field(ge=4)]
    correlation: Annotated[float, Field(ge=0, le=1)]
    confirmed_by: Annotated[list[Literal["geometry", "pixels", "eye", "published"]], *Listed]

    def thresholds(self) -> dict[str, Any]:
        """All but what confirms a pair."""
        return self.model_dump(exclude={"confirmed_by"})


class Split(Block):
    seed: Seed
    val: Annotated[float, Field(gt=0, lt=1)]
    holdout: Annotated[float, Field(gt=0, lt=1)]
    folds: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def leaves_something_to_train_on(self) -> "Split":
        if self.val + self.holdout >= 1:
            raise ValueError("val and holdout together must stay below 1")
        if self.folds == 1:
            raise ValueError("folds must be 0 (none) or at least 2")
        return self


class Plain(Block):
    pass


class Weighted(Block):
    beta: NotNegative


class Methods(Block):
    kd: Plain
    ls: Plain
    dkd: Weighted
    dist: Weighted
    at: Weighted
    feature: Weighted


class KD(Block):
    teachers: Names
    num_views: Annotated[int, Field(ge=0)]
    flips: bool
    crossfit: bool
    method: Method
    temperature: Positive
    alpha: Proportion
    methods: Methods

    @property
    def beta(self) -> float:
        """The chosen method's weight of its second part; 0 for methods that have none."""
        return getattr(getattr(self.methods, self.method), "beta", 0.0)

    @property
    def compares_features(self) -> bool:
        """Whether the method compares feature maps too, hence needs the teachers' networks in the loop."""
        return self.method in ("at", "feature")

    @model_validator(mode="after")
    def features_are_there(self) -> "KD":
        if self.compares_features and (self.num_views or self.flips):
            raise ValueError(
                f"method {self.method} compares feature maps, so the teachers must see each image as the student does; "
                "set kd.num_views to 0 and kd.flips to false"
            )
        return self

    @model_validator(mode="after")
    def targets_are_stored_by_fold(self) -> "KD":
        if self.crossfit and not self.num_views:
            raise ValueError(
                "kd.crossfit takes each image's target from the teachers that did not train on it, which needs stored "
                "targets; set kd.num_views to at least 1 (methods at and feature have none)"
            )
        return self


class Ablation(Block):
    CONTROL: ClassVar = "control"  # name of the run without a teacher
    student: Name
    seed: Seed
    epochs: Count
    temperatures: list[Positive]
    alphas: list[Proportion]
    methods: list[Method]
    shapes: dict[Name, dict[str, Any]]  # checked where a run is made of them: they change the student's block

    @model_validator(mode="after")
    def shapes_are_runs_of_their_own(self) -> "Ablation":
        for name, changes in self.shapes.items():
            if name in (self.CONTROL, *get_args(Method)) or name.startswith("teacher_"):
                raise ValueError(f"shapes: {name} is the name of another run or a teacher; choose another")
            if "epochs" in changes:
                raise ValueError(
                    f"shapes: {name} changes epochs, but all runs have those of ablation.epochs; remove it"
                )
        return self


class Int8Limits(Block):
    max_auc_drop: NotNegative
    max_ece_rise: NotNegative
    min_agreement: Proportion
    min_equal_decisions: Proportion
    max_bytes: Count
    max_overflowing_weights: Annotated[int, Field(ge=0)]
    max_sum_error: Positive


def not_renamed(scheme: Any) -> Any:
    if scheme == "naive":
        raise ValueError("the scheme naive is now called default")
    return scheme


Scheme = Annotated[
    str,
    BeforeValidator(not_renamed),
    Field(
        pattern=r"^(default|per_tensor|minmax|percentile|entropy|mixed_[1-9][0-9]*|qat_[1-9][0-9]*|weight_only|dynamic)$"
    ),
]


class QAT(Block):
    lr: Positive
    batch_size: Count


class Quantize(Block):
    calibration_images: Count
    sensitivity_images: Count
    seed: Seed
    candidates: Annotated[list[Scheme], *Listed]
    qat: QAT
    limits: Int8Limits
    bins: Count
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
    subgroup_minimum: Count


class Compare(Block):
    calibration_folds: Annotated[int, Field(ge=2)]
    dirichlet_penalty: NotNegative


class Robustness(Block):
    images: Count
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
    high_confidence: Proportion
    panel_images: Count


class Explain(Block):
    images: Count
    misses: Count
    neighbours: Count


class Predict(Block):
    flips: bool

    @property
    def passes(self) -> int:
        """Forward passes of a teacher for one image (``distillation.ensemble.MIRRORED``)."""
        return 4 if self.flips else 1


class Penalised(Block):
    c: Positive


class Forest(Block):
    trees: Count
    min_leaf: Count


class Boosting(Block):
    rounds: Count
    lr: Positive


class Classical(Block):
    logistic: Penalised
    forest: Forest
    boosting: Boosting
    svm: Penalised


class Baselines(Block):
    features: Literal["full", "quick"]
    train_images: Count | None
    seed: Seed
    models: Classical
