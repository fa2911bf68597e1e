"""What the blocks of ``params.yaml`` are made of, and those of distillation; see ``params``."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Method = Literal["kd", "ls", "dkd", "dist", "at", "feature"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
    teachers: Annotated[list[Name], Field(min_length=1)]
    views: Annotated[int, Field(ge=0)]
    flips: bool
    method: Method
    temperature: Positive
    alpha: Share
    methods: Methods

    @property
    def beta(self) -> float:
        """The chosen method's weight of its second part; 0 for methods that have none."""
        return getattr(getattr(self.methods, self.method), "beta", 0.0)

    @model_validator(mode="after")
    def features_are_there(self) -> "KD":
        if self.method in ("at", "feature") and (self.views or self.flips):
            raise ValueError(
                f"method {self.method} compares feature maps, so the teachers must see each image as the student does; "
                "set kd.views to 0 and kd.flips to false"
            )
        return self


class Ablation(Block):
    student: Name
    seed: Seed
    temperatures: list[Positive]
    alphas: list[Share]
    methods: list[Method]
