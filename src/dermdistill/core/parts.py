"""What the parts of the data are called, and the folders that their predictions and metrics have in git.

``val`` and ``holdout`` lie in ``predictions/val`` and ``metrics/val``; the halves of another source, such as Derm7pt,
in ``predictions/other/derm7pt/other_val``. Deliberately absent: which image is in which part (``splitting``).
"""

EVALUATED = ("val", "holdout")
OTHER = ("other_val", "other_test")  # other_val may guide a person's choice of recipe, other_test only judges


def of_source(source: str) -> list[str]:
    """The parts of another source, as paths below ``predictions`` and ``metrics``."""
    return [f"other/{source}/{part}" for part in OTHER]


def label(part: str) -> str:
    """What tables call it: ``val``, or ``other_val, derm7pt``."""
    *_, source, half = ("", *part.split("/"))
    return f"{half}, {source}" if source else half


def table(part: str) -> str:
    """Where the ids, lesions and diagnoses of a part's images stand in git."""
    return f"data/{'' if part.startswith('other/') else 'splits/'}{part}.csv"
