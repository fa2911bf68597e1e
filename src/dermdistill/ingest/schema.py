"""What a metadata table must be, checked by pandera; every finding is said at once, in one sentence.

Kept apart from :mod:`dermdistill.ingest.forms` because the rules hold for every form, and because pandera takes
over a second to import.
"""

from collections.abc import Callable

import pandas as pd
import pandera.pandas as pa

from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError

UNKNOWN_DX = f"unknown dx {{some}} (known: {', '.join(CLASSES)})"


def _rule(test: Callable[[pd.Series], pd.Series], finding: str) -> pa.Check:
    """A check of a whole column; ``finding`` may use {count}, {first}, {some}."""
    return pa.Check(test, error=finding)


def _filled(column: str) -> pa.Check:
    return _rule(lambda values: values != "", f"{{count}} rows without {column}")


def _plausible_age(values: pd.Series) -> pd.Series:
    return (values == "") | pd.to_numeric(values, errors="coerce").between(0, 120)


SCHEMA = pa.DataFrameSchema(
    {
        "image_id": pa.Column(
            checks=[
                _filled("image_id"),
                _rule(
                    lambda values: ~(values.str.casefold().duplicated() & (values != "")),
                    "{first} more than once ({count} repeated image_id in all)",
                ),
            ],
        ),
        "lesion_id": pa.Column(checks=_filled("lesion_id")),
        "dx": pa.Column(checks=_rule(lambda values: values.isin(CLASSES), UNKNOWN_DX)),
        "age": pa.Column(
            checks=_rule(_plausible_age, "ages that are no number from 0 to 120, such as {first!r} ({count} in all)")
        ),
    }
)


def checked(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """``table`` (all text) without blanks around values, sorted by image_id, age as a number.

    Sorting makes the order of the raw rows change nothing.

    Raises:
        UserError: naming every finding, with how often it occurs and an example.
    """
    table = table.apply(lambda column: column.str.strip()).sort_values("image_id", ignore_index=True)
    if table.empty:
        raise UserError(f"{source} has no rows; correct the table")
    try:
        SCHEMA.validate(table, lazy=True)
    except pa.errors.SchemaErrors as error:
        raise UserError(f"{source} has {' and '.join(_findings(error.failure_cases))}; correct the table") from None
    return table.assign(age=pd.to_numeric(table["age"].replace("", None)))


def _findings(cases: pd.DataFrame) -> list[str]:
    found = []
    for check, group in cases.groupby("check", sort=False):
        values = group.sort_values("index")["failure_case"].astype(str)
        kinds = sorted(set(values))
        some = ", ".join(map(repr, kinds[:5])) + (f" and {len(kinds) - 5} more" if len(kinds) > 5 else "")
        found.append(str(check).format(count=len(values), first=values.iloc[0], some=some))
    return found
