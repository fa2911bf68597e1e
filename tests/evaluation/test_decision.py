"""Net benefit by hand, its bounds, and what another prevalence does to it."""

import numpy as np
import pytest

from dermdistill.evaluation import bootstrap, decision, weighted_metrics

Y_TRUE = np.array([True] * 4 + [False] * 16)
Y_SCORE = np.array([0.9, 0.6, 0.3, 0.05, *([0.4] * 3), *([0.1] * 13)])


def value(metric: weighted_metrics.Metric) -> float:
    return bootstrap.value(metric, Y_TRUE)


def test_by_hand() -> None:
    # at 0.25: 3 of 20 true alarms, 3 of 20 false ones, odds 1/3
    assert value(decision.net_benefit(Y_TRUE, Y_SCORE >= 0.25, 0.25)) == pytest.approx(3 / 20 - 3 / 20 / 3)
    row = decision.measure(Y_TRUE, Y_SCORE, [0.25], 0.05)["here"]["0.25"]
    assert row["treat_all"] == pytest.approx(4 / 20 - 16 / 20 / 3)  # negative: treating none is better
    assert row["advantage"] == pytest.approx(row["model"])
    low = decision.measure(Y_TRUE, Y_SCORE, [0.02], 0.05)["here"]["0.02"]
    assert low["model"] == low["treat_all"] and low["advantage"] == 0  # everybody is referred


def test_perfection_reaches_the_prevalence_and_nobody_is_zero() -> None:
    assert value(decision.net_benefit(Y_TRUE, Y_TRUE, 0.3)) == pytest.approx(0.2)
    assert value(decision.net_benefit(Y_TRUE, np.zeros(20, bool), 0.3)) == 0
    assert value(decision.net_benefit(Y_TRUE, Y_TRUE, 0.3, prevalence=0.02)) == pytest.approx(0.02)


def test_another_prevalence_by_bayes() -> None:
    # odds 9 here, prior odds from 1/4 to 1/19: 9 · 4/19
    shifted = decision.at_prevalence(Y_TRUE, Y_SCORE, 0.05)
    assert shifted[0] == pytest.approx((36 / 19) / (1 + 36 / 19))
    assert decision.at_prevalence(Y_TRUE, Y_SCORE, 0.2) == pytest.approx(Y_SCORE)  # the one there is
    assert decision.at_prevalence(Y_TRUE, np.array([0.0, 1.0] * 10), 0.05) == pytest.approx([0.0, 1.0] * 10)
    same = decision.measure(Y_TRUE, Y_SCORE, [0.25], 0.2)
    assert same["screening"]["0.25"] == pytest.approx(same["here"]["0.25"])


def test_the_screening_weighs_with_its_own_prevalence() -> None:
    y_pred = Y_SCORE >= 0.25  # sensitivity 3/4, false alarms 3/16
    found = value(decision.net_benefit(Y_TRUE, y_pred, 0.1, prevalence=0.02))
    assert found == pytest.approx(0.02 * 3 / 4 - 0.98 * 3 / 16 / 9)


def test_degenerate_sets() -> None:
    nobody = np.zeros(3, bool)
    row = decision.measure(nobody, np.array([0.1, 0.2, 0.9]), [0.5], 0.02)
    assert row["here"]["0.5"]["model"] == pytest.approx(-1 / 3)
    assert np.isnan(row["screening"]["0.5"]["model"])  # no sensitivity: null in the file, not 0
    table = decision.curve(Y_TRUE, np.full(20, 0.2), 0.02)
    assert (table.loc[table["threshold"] <= 0.2, "model"] == table.loc[table["threshold"] <= 0.2, "treat_all"]).all()
    assert (table.loc[table["threshold"] > 0.2, "model"] == 0).all()
    assert list(table) == ["threshold", "model", "treat_all", "model_screening", "treat_all_screening"]


def test_advantages_are_named_as_in_the_file() -> None:
    found = decision.advantages(Y_TRUE, Y_SCORE, [0.25], 0.05)
    measured = decision.measure(Y_TRUE, Y_SCORE, [0.25], 0.05)
    for place in ("here", "screening"):
        metric = found[f"net_benefit.{place}.0.25.advantage"]
        assert value(metric) == pytest.approx(measured[place]["0.25"]["advantage"])
    assert len(found) == 2
