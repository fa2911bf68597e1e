"""The detector for Python programs: ``from dermdistill import Detector``.

Needs NumPy, Pillow and ONNX Runtime only; the command ``dermdistill predict`` and the MLflow model call it too, so
all three give the same answers. What the answers say is decided in :mod:`dermdistill.deployment.verdict`; arrays that
are already prepared go to :mod:`dermdistill.deployment.runtime` directly.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.core.files import sha256
from dermdistill.deployment import runtime, verdict
from dermdistill.errors import UserError
from dermdistill.ingest import pixels
from dermdistill.metrics import selective

Picture = str | Path | bytes | Image.Image | np.ndarray
INSTALLED = (  # where the model is: inside the installed package, or in the repository around this file
    Path(__file__).resolve().parent / "deployed/student.int8.onnx",
    Path(__file__).resolve().parents[2] / "models/deploy/student.int8.onnx",
)


@dataclass(frozen=True)
class Answer:
    """What the detector says of one picture, or of one lesion.

    Attributes:
        image: the path as it was given; empty for other pictures.
        outcome: ``answer``, ``doubt`` or ``cannot judge``.
        reasons: why there is doubt, or why it cannot judge; short sentences.
        decision: ``refer`` or ``no alarm``; ``cannot judge`` if that is the outcome.
        operating_point, threshold: from which probability of melanoma on the decision is to refer.
        model, model_sha256: id of the model, and the first 8 hex digits of the SHA-256 of its file.
        melanoma: calibrated probability of melanoma, 0 to 1. It and the following are None if it cannot judge.
        probabilities: calibrated, diagnosis → 0 to 1, in the order of ``CLASSES``; they sum to 1.
        conformal_set: the diagnoses that cannot be excluded (docs/model_card.md), None if the file has no rules for it.
        deferred: whether it would be left to a person at 90 % answered images; None if the file has no rules for it.
        quality: brightness, contrast, saturation and sharpness of the prepared image; None for several too.
    """

    image: str
    outcome: str
    reasons: list[str]
    decision: str
    operating_point: str
    threshold: float
    model: str
    model_sha256: str
    melanoma: float | None = None
    probabilities: dict[str, float] | None = None
    conformal_set: list[str] | None = None
    deferred: bool | None = None
    quality: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the attributes by name."""
        return asdict(self)


class Detector:
    """A deployed model that takes pictures of any size and form; :meth:`load` opens one.

    Attributes:
        path: of the model file.
        model, model_sha256: as in :class:`Answer`.
        operating_point, threshold: of every decision.
    """

    def __init__(self, opened: runtime.Detector, operating_point: str, threshold: float) -> None:
        self.path, self.operating_point, self.threshold = opened.path, operating_point, threshold
        self.model, self.model_sha256 = opened.metadata.get("id", "unnamed"), sha256(opened.path)[:8]
        text = opened.metadata.get("selective")
        self._rules = None if text is None else selective.from_text(text, str(opened.path))
        self._opened = opened

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        operating_point: str = "sensitivity",
        threshold: float | None = None,
        threads: int | None = None,
    ) -> "Detector":
        """Open the model at ``path``, by default the installed one.

        Args:
            path: an ``.onnx`` file that the stage ``ship`` made.
            operating_point: ``sensitivity``, ``youden`` or ``f1``, thresholds that were chosen on val.
            threshold: of P(melanoma), 0 to 1, instead of an operating point.
            threads: of the processor; None: all.

        Raises:
            UserError: no such model, damaged, not of this project, of another format or for a newer ONNX Runtime; or it
                stores no such operating point.
        """
        opened = runtime.Detector(installed() if path is None else path, threads)
        if threshold is not None:
            if not 0 < threshold < 1:
                raise UserError(f"a threshold is a probability between 0 and 1, not {threshold}")
            return cls(opened, "your own", threshold)
        if operating_point not in opened.thresholds:
            known = ", ".join(opened.thresholds) or "none; use a deployed one"
            raise UserError(f"model {opened.path} stores no operating point {operating_point} (it has: {known})")
        return cls(opened, operating_point, opened.thresholds[operating_point])

    @overload
    def predict(self, images: Picture) -> Answer: ...  # type: ignore[overload-overlap]  # a str is a sequence too

    @overload
    def predict(self, images: Sequence[Picture]) -> list[Answer]: ...

    def predict(self, images: Picture | Sequence[Picture]) -> Answer | list[Answer]:
        """One answer for one picture, a list for a list or an array (N, H, W, 3).

        Args:
            images: a path, a file's bytes, what Pillow opened, or an array (H, W, 3) uint8 RGB; any H and W from 16
                pixels on.

        A file that is missing or unreadable is no error but an answer, with the outcome ``cannot judge``.

        Raises:
            UserError: something else than a picture is given.
        """
        if isinstance(images, str | Path | bytes | Image.Image) or (
            isinstance(images, np.ndarray) and images.ndim != 4
        ):
            return next(self.stream([images]))
        return list(self.stream(images))

    def predict_lesion(self, images: Sequence[Picture]) -> Answer:
        """One answer for several pictures of one lesion: of the mean of their probabilities.

        ``benchmarks/lesions.py`` chose the mean on val. Pictures that cannot be judged are left out, which is a reason
        for doubt; if none is left, neither can the lesion be judged.

        Raises:
            UserError: no picture is given, or something else than pictures.
        """
        answers = list(self.stream(images))
        if not answers:
            raise UserError("a lesion needs one picture at least; give a list of them")
        found = [list(one.probabilities.values()) for one in answers if one.probabilities is not None]
        missing = [reason for one in answers if one.probabilities is None for reason in one.reasons]
        if not found:
            return self._refusal("", missing)
        return self._answer("", verdict.combined(np.array(found)), None, missing)

    def stream(self, images: Iterable[Picture]) -> Iterator[Answer]:
        """As :meth:`predict`, one answer after the other; never more than 32 pictures are in memory."""
        pictures = iter(images)
        while chunk := list(islice(pictures, runtime.BATCH)):
            yield from self._batch(chunk)

    def _batch(self, chunk: Sequence[Picture]) -> list[Answer]:
        read = [self._read(picture) for picture in chunk]
        prepared = [image for image in read if isinstance(image, np.ndarray)]
        p = iter(self._opened.predict(np.stack(prepared)) if prepared else ())
        return [
            self._refusal(_name(picture), [image])
            if isinstance(image, str)
            else self._answer(_name(picture), next(p), verdict.quality(image), [])
            for picture, image in zip(chunk, read, strict=True)
        ]

    def _read(self, picture: Picture) -> np.ndarray | str:
        """The prepared image (height, width, 3), or why it cannot be judged."""
        source = _image(picture) if isinstance(picture, np.ndarray) else picture
        if not isinstance(source, str | Path | bytes | Image.Image):
            raise UserError(f"a picture is a path, bytes, a Pillow image or an array, not {type(picture).__name__}")
        try:
            return pixels.read(source, _name(picture) or "given", self._opened.height, self._opened.width)
        except UserError as error:
            return str(error)

    def _answer(self, name: str, p: np.ndarray, quality: dict[str, float] | None, doubts: list[str]) -> Answer:
        """Of probabilities ``p`` (7,); ``doubts``: reasons beside those that follow from them."""
        outcome, reasons = verdict.outcome_of(p, self.threshold, self._rules)
        melanoma, rules = float(p[MELANOMA]), self._rules
        answer = self._refusal(name, [*doubts, *reasons])
        return replace(
            answer,
            outcome=verdict.DOUBT if doubts else outcome,
            decision=verdict.REFER if melanoma >= self.threshold else verdict.NO_ALARM,
            melanoma=melanoma,
            probabilities=dict(zip(CLASSES, map(float, p), strict=True)),
            conformal_set=None if rules is None else verdict.conformal_set(p, rules),
            deferred=None if rules is None else verdict.deferred(p, rules),
            quality=quality,
        )

    def _refusal(self, name: str, reasons: list[str]) -> Answer:
        point, refused = (self.operating_point, self.threshold), verdict.CANNOT_JUDGE
        return Answer(name, refused, reasons, refused, *point, self.model, self.model_sha256)


def installed() -> Path:
    """The model of this installation.

    Raises:
        UserError: the package was built without weights.
    """
    for path in INSTALLED:
        if path.is_file():
            return path
    raise UserError("this dermdistill was built without a model; name an .onnx file that `dvc repro ship` made")


def _name(picture: Picture) -> str:
    return str(picture) if isinstance(picture, str | Path) else ""


def _image(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise UserError(
            f"an array is uint8 RGB of shape (H, W, 3), not {array.dtype} {array.shape}; scale values to 0 to 255"
        )
    return Image.fromarray(array)
