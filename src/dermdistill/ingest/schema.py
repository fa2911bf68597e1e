"""Validates a metadata table by pandera; one sentence names every fault.

This module is apart from :mod:`dermdistill.ingest.forms` because the rules apply to every form, and because pandera
takes over a second to import.
"""

from collections.abc import Callable

import pandas as pd
import pandera.pandas as pa

from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError
from dermdistill.ingest.truth import counts
from dermdistill.ingest.vocabulary import REST

OUTSIDE = (
    "{count} rows outside our seven diagnoses: {named} (say in columns.yaml beside the table which of "
    f"{', '.join(CLASSES)} a word is, `dx: {{{{word: nv}}}}`, or leave such rows out with `other: drop` there; "
    "`evaluate` also takes --other drop, and --other rest to judge melanoma against the rest)"
)


def _rule(test: Callable[[pd.Series], pd.Series], fault: str) -> pa.Check:
    """A check of a whole column; the message ``fault`` may use {count}, {first}, {named}."""
    return pa.Check(test, error=fault)


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
        "dx": pa.Column(checks=_rule(lambda values: values.isin((*CLASSES, REST)), OUTSIDE)),
        "age": pa.Column(
            checks=_rule(_plausible_age, "ages that are no number from 0 to 120, such as {first!r} ({count} in all)")
        ),
    }
)


def checked(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """``table`` (all text) without blanks around values, sorted by image_id, age in years as a number.

    It is sorted so that the order of the raw rows changes nothing.

    Raises:
        UserError: the table has faults; the message names each, with its count and an example.
    """
    table = table.apply(lambda column: column.str.strip()).sort_values("image_id", ignore_index=True)
    if table.empty:
        raise UserError(f"{source} has no rows; correct the table")
    try:
        SCHEMA.validate(table, lazy=True)
    except pa.errors.SchemaErrors as error:
        raise UserError(f"{source} has {' and '.join(_faults(error.failure_cases))}; correct the table") from None
    return table.assign(age=pd.to_numeric(table["age"].replace("", None)))


def _faults(cases: pd.DataFrame) -> list[str]:
    faults = []
    for check, group in cases.groupby("check", sort=False):
        values = group.sort_values("index")["failure_case"].astype(str)
        faults.append(str(check).format(count=len(values), first=values.iloc[0], named=counts(values)))
    return faults
