"""The INT8 ladder of each student, as ``quantize`` measured it, for docs/deployment.md.

``make readme`` writes the fragment and puts it into the document; ``verify`` compares both with the committed CSVs of
``plots/quantize/ladder``. No stage makes them, so that prose and tables of that document can change without a run.
"""

import csv
import sys
from pathlib import Path

from dermdistill import params
from dermdistill.core.files import write_text
from dermdistill.errors import UserError, run
from dermdistill.params import Params
from dermdistill.reporting import fragments
from dermdistill.reporting.cells import number, percent

DOCUMENT, NAME = "docs/deployment.md", "ladder"
LADDERS, TABLES = "plots/quantize/ladder", f"{fragments.FOLDER}/{NAME}.md"


def text(root: str | Path, settings: Params) -> str:
    """One table a student, of the seed that ships; the rung taken is in bold.

    Raises:
        UserError: a ladder has not been measured.
    """
    tables = [_table(Path(root), f"int8_{student}_s{settings.ship.seed}") for student in settings.run.students]
    return "\n".join(tables)


def _table(root: Path, model: str) -> str:
    path = root / LADDERS / f"{model}.csv"
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `dvc repro quantize` makes it") from None
    taken = next((row["rung"] for row in rows if not row["breaks"]), None)
    head = [f"`{model}`", "AUC lost", "same diagnosis", "same decision", "KB", "time, share of FP32", "breaks"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---|" * (len(head) - 1)]
    for row in rows:
        name = f"**`{row['rung']}`**" if row["rung"] == taken else f"`{row['rung']}`"
        shares = [percent(float(row[key]), 1) for key in ("agreement", "equal_decisions")]
        broken = ", ".join(f"`{limit.split()[0]}`" for limit in row["breaks"].split(", ") if limit)
        lost = number(round(float(row["auc_drop"]), 3) + 0.0)  # −0 is 0
        shown = [name, lost, *shares, f"{int(row['bytes']) / 1000:,.0f}", number(float(row["time_ratio"]), 2), broken]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    write_text(TABLES, text(".", params.load()))
    fragments.insert(DOCUMENT, NAME, TABLES)


if __name__ == "__main__":
    run(main, *sys.argv[1:])
