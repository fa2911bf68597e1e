"""What one version of a model loses against another, on numbers small enough to count by hand."""

import numpy as np
import pytest

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.errors import UserError
from dermdistill.metrics import parity


def version(scores: list[float], threshold: float) -> parity.Version:
    """P(melanoma) as given, the rest on the first class."""
    p = np.zeros((len(scores), len(CLASSES)))
    p[:, MELANOMA], p[:, 0] = scores, 1 - np.array(scores)
    return parity.Version(p, threshold)


LABELS = np.array([MELANOMA, MELANOMA, 0, 0])


def test_cost_counts_what_changed() -> None:
    reference, other = version([0.9, 0.6, 0.4, 0.1], 0.5), version([0.9, 0.3, 0.4, 0.1], 0.35)
    measured = parity.cost(LABELS, reference, other, bins=10)
    assert measured["auc"] == 0.75 and measured["auc_drop"] == 0.25
    assert measured["max_abs_dp"] == pytest.approx(0.3) and measured["agreement"] == 0.75
    assert measured["equal_decisions"] == 0.5  # the second melanoma is lost, the first other image referred
    assert measured["ece_rise"] == pytest.approx(measured["ece"] - (0.1 + 0.4 + 0.4 + 0.1) / 4)


def test_an_undefined_auc_violates_its_limit() -> None:
    same = version([0.9, 0.6, 0.4, 0.1], 0.5)
    measured = parity.cost(np.zeros(4, int), same, same, bins=10)
    assert parity.violations(measured, {"max_auc_drop": 1.0}) == ["auc_drop nan (allowed 1)"]


def test_limits_are_floors_or_ceilings() -> None:
    measured = {"agreement": 0.9, "bytes": 12}
    assert parity.violations(measured, {"min_agreement": 0.9, "max_bytes": 12}) == []
    assert parity.violations(measured, {"min_agreement": 0.95, "max_bytes": 11}) == [
        "agreement 0.9 (needed 0.95)",
        "bytes 12 (allowed 11)",
    ]
    with pytest.raises(KeyError):
        parity.violations(measured, {"max_ece": 1.0})


def test_calibration_needs_a_melanoma() -> None:
    with pytest.raises(UserError, match="no melanoma"):
        parity.calibrated(np.zeros(4, int), version([0.9, 0.6, 0.4, 0.1], 0.5).probabilities, 0.95)


def row(dp: float) -> dict[str, dict[str, float]]:
    return {"batch_1": {"max_abs_dp": 0.0}, "batch_32": {"max_abs_dp": dp}}


def test_a_float_format_may_deviate_by_rounding_only_at_any_batch() -> None:
    assert parity.export_violations(row(1e-6), 1e-4, {}, 0.1) == []
    assert parity.export_violations(row(1e-3), 1e-4, {}, 0.1) == ["batch_32 max_abs_dp 0.001 (allowed 0.0001)"]


def test_int8_is_held_to_what_it_costs_and_to_itself_without_optimisations() -> None:
    int8 = row(0.2) | {"cost": {"agreement": 0.9}, "optimisations_off": {"max_abs_dp": 0.4}}
    assert parity.export_violations(int8, 1e-4, {"min_agreement": 0.9, "max_bytes": 1}, 0.5) == []
    assert parity.export_violations(int8, 1e-4, {"min_agreement": 0.95}, 0.1) == [
        "agreement 0.9 (needed 0.95)",
        "with optimisations off max_abs_dp 0.4 (allowed 0.1)",
    ]
