"""Predictions files: one model's probabilities for one set of images. Every published number comes from them.

A file holds the *raw* softmax output (temperature 1) with eight significant digits, sorted by image. Reading
checks the content and keeps the order, so two models of the same images can be compared row by row.

Deliberately absent: calibration. It is fitted later, on val, and can change without running a model again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.core.files import atomic, read_table
from dermdistill.errors import UserError

KEYS = ("image_id", "lesion_id", "dx")
PROBABILITIES = tuple(f"p_{name}" for name in CLASSES)
SUM_TOLERANCE = 1e-4  # float32 softmax is far closer; percentages, logits and dropped classes are not


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for N images, sorted by ``image_id``. :func:`build` and :func:`read` make checked ones."""

    image_id: np.ndarray  # (N,) str
    lesion_id: np.ndarray  # (N,) str
    labels: np.ndarray  # (N,) int, index into CLASSES
    probabilities: np.ndarray  # (N, 7) float64, raw

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def melanoma(self) -> np.ndarray:
        """(N,) bool: whether the image shows a melanoma (y_true)."""
        return np.asarray(self.labels == MELANOMA)

    @property
    def p_melanoma(self) -> np.ndarray:
        """(N,) float64: P(mel) (y_score)."""
        return self.probabilities[:, MELANOMA]

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of ``table`` (indexed by image_id) for these images, in their order.

        Raises:
            UserError: if an image is missing from the table's index, or the index repeats an image.
        """
        repeated = table.index[table.index.duplicated()]
        if len(repeated):
            raise UserError(f"image {repeated[0]} stands twice in the metadata table; rerun `prepare`")
        missing = pd.Index(self.image_id).difference(table.index)
        if len(missing):
            raise UserError(f"image {missing[0]} is predicted but not in the metadata table; rerun `prepare`")
        return table.loc[self.image_id]

    def lookup(self, column: pd.Series) -> np.ndarray:
        """The values of ``column`` (indexed by image_id) for these images, (N,); errors as in :meth:`rows`."""
        return self.rows(column.to_frame()).iloc[:, 0].to_numpy()


def build(
    image_id: Sequence[str] | np.ndarray,
    lesion_id: Sequence[str] | np.ndarray,
    dx: Sequence[str] | np.ndarray,
    probabilities: np.ndarray,
    source: str = "predictions",
) -> Predictions:
    """Check the columns and sort them by image.

    Args:
        image_id, lesion_id, dx: N values each; ``dx`` holds names of CLASSES.
        probabilities: (N, 7) in the order of CLASSES.
        source: name of these predictions in error messages.

    Raises:
        UserError: if there are no rows, an id is empty or repeated, a diagnosis is unknown, or probabilities are
            not finite, outside 0 to 1 or do not sum to 1.
    """
    images, lesions, names = (np.asarray(column, dtype=str) for column in (image_id, lesion_id, dx))
    values = np.asarray(probabilities, dtype=np.float64)
    if len(images) == 0:
        raise UserError(f"{source} holds no images; rerun the stage that predicts")
    if values.shape != (len(images), len(CLASSES)) or not len(images) == len(lesions) == len(names):
        raise UserError(f"{source}: every image needs a lesion, a diagnosis and 7 probabilities")
    _check_keys(images, lesions, names, source)
    _check_distributions(images, values, source)
    order = np.argsort(images, kind="stable")
    labels = np.array([CLASSES.index(name) for name in names])
    return Predictions(images[order], lesions[order], labels[order], values[order])


def _check_keys(images: np.ndarray, lesions: np.ndarray, names: np.ndarray, source: str) -> None:
    if (images == "").any() or (lesions == "").any():
        raise UserError(f"{source}: a row has an empty image_id or lesion_id; every image needs both")
    unique, count = np.unique(images, return_counts=True)
    if (count > 1).any():
        raise UserError(f"{source}: image {unique[count > 1][0]} stands there more than once; keep one row")
    unknown = sorted(set(names.tolist()) - set(CLASSES))
    if unknown:
        raise UserError(f"{source}: unknown diagnosis {unknown[0]!r}; expected one of {', '.join(CLASSES)}")


def _check_distributions(images: np.ndarray, values: np.ndarray, source: str) -> None:
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise UserError(f"{source}: image {images[~finite][0]} has a probability that is not a finite number")
    inside = ((values >= 0) & (values <= 1)).all(axis=1)
    if not inside.all():
        raise UserError(f"{source}: {images[~inside][0]} has a probability outside 0 to 1; apply softmax")
    deviates = np.abs(values.sum(axis=1) - 1) > SUM_TOLERANCE
    if deviates.any():
        total = values[deviates][0].sum()
        raise UserError(f"{source}: the probabilities of image {images[deviates][0]} sum to {total:.6g}, not to 1")


def read(path: str | Path) -> Predictions:
    """Read and check a predictions file; further columns are ignored.

    Raises:
        UserError: if the file or a column is missing, or :func:`build` refuses the content.
    """
    table = read_table(path)
    missing = [name for name in (*KEYS, *PROBABILITIES) if name not in table.columns]
    if missing:
        raise UserError(f"{path} has no column {missing[0]}; expected {','.join((*KEYS, *PROBABILITIES))}")
    try:  # Python's own parser: exact, where pandas' fast one may be off in the last bit
        values = table[list(PROBABILITIES)].to_numpy(dtype=object).astype(np.float64)
    except ValueError as error:
        raise UserError(f"{path} has a probability that is not a number: {error}") from None
    image_id, lesion_id, dx = (table[name].to_numpy(dtype=object) for name in KEYS)
    return build(image_id, lesion_id, dx, values, source=str(path))


def write(
    path: str | Path,
    image_id: Sequence[str] | np.ndarray,
    lesion_id: Sequence[str] | np.ndarray,
    dx: Sequence[str] | np.ndarray,
    probabilities: np.ndarray,
) -> None:
    """Check as :func:`build` does, then write; arguments and errors as there.

    Reading a file and writing it again gives the same bytes.
    """
    checked = build(image_id, lesion_id, dx, probabilities, source=str(path))
    names = [CLASSES[label] for label in checked.labels]
    keys = pd.DataFrame({"image_id": checked.image_id, "lesion_id": checked.lesion_id, "dx": names})
    table = keys.join(pd.DataFrame(checked.probabilities, columns=list(PROBABILITIES)))
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.8g", lineterminator="\n")


def write_mean(path: str | Path, members: Sequence[Predictions]) -> None:
    """The mean of the members' probabilities, which is what they together predict; all must be of the same images."""
    first = members[0]
    for other in members[1:]:
        require_same_images(first, other)
    mean = np.mean([one.probabilities for one in members], axis=0)
    write(path, first.image_id, first.lesion_id, np.array(CLASSES)[first.labels], mean)


def replace(original: Predictions, probabilities: np.ndarray) -> Predictions:
    """The same images with other probabilities (N, 7), such as calibrated ones."""
    return Predictions(original.image_id, original.lesion_id, original.labels, probabilities)


def require_same_images(first: Predictions, second: Predictions) -> None:
    """Raise UserError unless both hold the same images with the same lesions and labels."""
    same = np.array_equal(first.image_id, second.image_id) and np.array_equal(first.labels, second.labels)
    if not (same and np.array_equal(first.lesion_id, second.lesion_id)):
        raise UserError("the two predictions files differ in images, lesions or diagnoses; rerun both")
