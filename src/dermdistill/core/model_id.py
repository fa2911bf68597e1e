"""The name of a trained model, taken apart here and nowhere else; ``params`` writes it out too.

``teacher_lite2``, ``teacher_ensemble``, ``baseline_svm``; students, controls and INT8 files also carry the seed they
were trained with: ``student_tiny_s0``. The same text names folders, files of predictions and metrics, and table rows.
"""

import re
from pathlib import Path
from typing import NamedTuple

KINDS = ("teacher", "student", "control", "int8", "baseline")  # the order of every table
SEEDED = ("student", "control", "int8")
_SEEDED = re.compile(r"(.+)_s(\d+)")


class ModelId(NamedTuple):
    """``str(model_id)`` gives the text, :meth:`parse` reads it."""

    kind: str
    name: str
    seed: int | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelId":
        """``student_tiny_s0`` → ModelId("student", "tiny", 0).

        Raises:
            ValueError: the text is no model id.
        """
        kind, _, name = text.partition("_")
        if kind not in KINDS or not name:
            raise ValueError(f"{text!r} is no model id; it begins with one of {', '.join(KINDS)} and names the model")
        if kind not in SEEDED:
            return cls(kind, name)
        parts = _SEEDED.fullmatch(name)
        if parts is None:
            raise ValueError(f"{text!r} is no model id; a {kind} ends in its seed, such as _s0")
        return cls(kind, parts[1], int(parts[2]))

    def __str__(self) -> str:
        return self.family if self.seed is None else f"{self.family}_s{self.seed}"

    @property
    def family(self) -> str:
        """The text without the seed: what several trainings of one network have in common."""
        return f"{self.kind}_{self.name}"

    @property
    def folder(self) -> Path:
        """Where the stage that trains a network puts it; baselines and ``teacher_ensemble`` have none."""
        return Path("models/teachers" if self.kind == "teacher" else "models/students") / str(self)

    def predictions(self, part: str, source: str | None = None) -> Path:
        """Where the stage that predicts puts the model's probabilities on a part; ``collect`` copies them.

        ``source``: another than HAM10000, which then has the parts other_val and other_test.
        """
        folder = Path("data/predictions") if source is None else Path("data/predictions_other") / source
        return folder / str(self) / f"{part}.csv"

    def of_kind(self, kind: str) -> "ModelId":
        """The same network and seed in another role: the control or INT8 file of a student."""
        return self._replace(kind=kind)
