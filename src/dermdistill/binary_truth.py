"""What may be said of a model where the truth is melanoma or not: no metric that would need another diagnosis.

The figures are those of the protocol, so they cannot differ from it. It knows seven classes, and the images without
melanoma stand in one of them, :data:`STAND_IN`, until :func:`only` has left out whatever could tell which.
"""

from typing import Any

from dermdistill.evaluation import subgroups

STAND_IN = "nv"
SECTIONS = ("n", "melanoma", "operating_points", "net_benefit")
CURVES = ("curves/roc", "curves/pr", "curves/reliability", "curves/threshold", "curves/decision")
SEVERAL_CLASSES = ("histology", "diagnosis", "macro_f1")  # groups and metrics that depend on the seven


def only(result: dict[str, Any]) -> dict[str, Any]:
    """The binary part of what :func:`dermdistill.evaluation.protocol.measure` returns, ``robustness`` included."""
    rows = [row for row in result["subgroups"]["rows"] if row["group"] not in SEVERAL_CLASSES]
    patients = [row for row in rows if row["group"] in subgroups.PATIENT_GROUPS]
    binary = {name: value for name, value in result.items() if name in (*SECTIONS, "shared", "robustness")}
    binary["subgroups"] = {
        "rows": rows,
        "worst": subgroups.worst(rows),
        "worst_of_patients": subgroups.worst(patients),
    }
    binary["intervals"] = {
        name: bounds
        for name, bounds in result["intervals"].items()
        if name.split(".")[0] in SECTIONS and "histology" not in name
    }
    kept: dict[str, Any] = _without(binary)
    return {"truth": "melanoma or not"} | kept


def _without(value: Any) -> Any:
    """Nested dicts without the keys SEVERAL_CLASSES."""
    if not isinstance(value, dict):
        return value
    return {key: _without(item) for key, item in value.items() if key not in SEVERAL_CLASSES}
