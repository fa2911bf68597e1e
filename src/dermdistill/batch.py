"""``dermdistill predict`` for many images: text, JSON lines or a CSV table that goes on where it stopped.

One image after the other, so ten thousand take no more memory than a hundred. A file that cannot be judged is a row
with its reason; the rest goes on, and the command ends with exit code 1. Rows of a CSV go to ``OUT.partial``, which
becomes ``OUT`` when all are there: a table of that name is always whole. Deliberately absent: several processes; start
the command on parts of the images.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from dermdistill.api import Answer, Detector
from dermdistill.core.classes import CLASSES, NAMES
from dermdistill.core.files import atomic
from dermdistill.deployment.verdict import CANNOT_JUDGE, DOUBT
from dermdistill.errors import UserError
from dermdistill.ingest.archives import IMAGES

SUFFIXES = (*IMAGES, ".heic", ".heif")  # the latter are rows that say what to do
MANY = 100  # images from which on progress is shown
PROBABILITIES = tuple(f"p_{name}" for name in CLASSES)
COLUMNS = (
    "image", "outcome", "decision", "melanoma", *PROBABILITIES, "conformal_set", "deferred", "reasons",
    "operating_point", "threshold", "model", "model_sha256",
)  # fmt: skip
MADE_BY = COLUMNS[-4:]  # the same in every row of a table


def images_in(paths: Sequence[Path]) -> list[str]:
    """The files among ``paths``, and the images below those that are folders, sorted.

    Raises:
        UserError: a folder holds no image.
    """
    found: list[str] = []
    for path in paths:
        below = sorted(file for file in path.rglob("*") if _is_image(file)) if path.is_dir() else [path]
        if not below:
            raise UserError(f"folder {path} holds no image ({', '.join(SUFFIXES)}); name another")
        found += map(str, below)
    return found


def write(detector: Detector, images: Sequence[str], form: Callable[[Answer], str]) -> None:
    """Print every answer as soon as it is there.

    Raises:
        UserError: after the last one, if some images cannot be judged.
    """
    refused = []
    for answer in progress(detector.stream(images), len(images), sys.stdout.isatty()):
        print(form(answer), flush=True)
        refused += _refusals(answer.outcome, answer.reasons)
    _end(refused, len(images))


def write_csv(detector: Detector, images: Sequence[str], out: Path) -> None:
    """Write ``out``; rows that an interrupted call left in ``out.partial`` are kept.

    Raises:
        UserError: ``out`` exists, cannot be written, or its rows come from another model or threshold; and after the
            last row, if some images cannot be judged.
    """
    partial = out.with_name(f"{out.name}.partial")
    if out.exists():
        raise UserError(f"{out} exists already; delete it or name another file")
    expected = (detector.operating_point, f"{detector.threshold:.6g}", detector.model, detector.model_sha256)
    rows = _rows(partial, expected)
    done = {row["image"] for row in rows}
    todo = [image for image in dict.fromkeys(images) if image not in done]
    refused = [reason for row in rows for reason in _refusals(row["outcome"], [row["reasons"]])]
    try:
        with atomic(partial) as temporary:
            _append(temporary, rows, header=True)
        for answer in progress(detector.stream(todo), len(todo), False):
            _append(partial, [row_of(answer)])
            refused += _refusals(answer.outcome, answer.reasons)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); name another file") from None
    partial.replace(out)
    print(f"{len(done) + len(todo):,} images in {out}" + (f", {len(done):,} of them from before" if done else ""))
    _end(refused, len(done) + len(todo))


def text(answer: Answer) -> str:
    """An answer in lines for people."""
    if answer.probabilities is None:
        lines = [f"{answer.image}: {CANNOT_JUDGE}", *(f"  {reason}" for reason in answer.reasons)]
    else:
        at = f"{answer.decision} at threshold {answer.threshold:.1%} ({answer.operating_point})"
        lines = [f"{answer.image}: melanoma {answer.melanoma:.1%}, {at}"]
        ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])
        lines += [f"  {p:6.1%}  {name:<6}{NAMES[name]}" for name, p in ranked]
        lines += [f"  {DOUBT}: {reason}" for reason in answer.reasons]
    return "\n".join([*lines, f"  by {answer.model} ({answer.model_sha256})"])


def json_line(answer: Answer) -> str:
    """An answer as one line of JSON."""
    return json.dumps(answer.to_dict(), allow_nan=False)


def row_of(answer: Answer) -> dict[str, str]:
    """An answer as the row of a table, by ``COLUMNS``; empty where there is no value."""
    row = {
        "image": answer.image,
        "outcome": answer.outcome,
        "decision": answer.decision,
        "melanoma": "" if answer.melanoma is None else f"{answer.melanoma:.8g}",
        "conformal_set": " ".join(answer.conformal_set or []),
        "deferred": "" if answer.deferred is None else str(answer.deferred).lower(),
        "reasons": "; ".join(answer.reasons),
        "operating_point": answer.operating_point,
        "threshold": f"{answer.threshold:.6g}",
        "model": answer.model,
        "model_sha256": answer.model_sha256,
    }
    return row | {f"p_{name}": f"{p:.8g}" for name, p in (answer.probabilities or {}).items()}


def progress(answers: Iterable[Answer], total: int, shown: bool) -> Iterator[Answer]:
    """Pass ``answers`` on; on a terminal, count them for whoever waits, unless they are ``shown`` there already."""
    quiet = shown or total < MANY or not sys.stderr.isatty()
    for count, answer in enumerate(answers, 1):
        yield answer
        if not quiet and (count % 50 == 0 or count == total):
            print(f"\r{count:,} of {total:,} images", end="\n" if count == total else "", file=sys.stderr, flush=True)


def _append(path: Path, rows: Iterable[dict[str, str]], header: bool = False) -> None:
    with path.open("a", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if header:
            table.writeheader()
        table.writerows(rows)


def _rows(partial: Path, expected: tuple[str, ...]) -> list[dict[str, str]]:
    """The whole rows of a table that was not finished; a last row that was cut off is left out."""
    if not partial.exists():
        return []
    content = partial.read_text(encoding="utf-8")
    rows = list(csv.DictReader(content.splitlines(keepends=True)))
    if rows and not content.endswith("\n"):
        rows.pop()
    if any(tuple(row.get(name) for name in MADE_BY) != expected or set(row) != set(COLUMNS) for row in rows):
        raise UserError(f"{partial} holds answers of another model or threshold; delete it or name another file")
    return rows


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _refusals(outcome: str, reasons: Sequence[str]) -> list[str]:
    return ["; ".join(reasons)] if outcome == CANNOT_JUDGE else []


def _end(refused: Sequence[str], total: int) -> None:
    if refused:
        raise UserError(f"{len(refused)} of {total} images cannot be judged, the first: {refused[0]}")
