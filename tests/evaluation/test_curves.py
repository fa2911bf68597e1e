"""The tables behind the plots agree with the metrics, and are empty where nothing can be ranked."""

import numpy as np
import pytest
from helpers import simulated

from dermdistill.core.classes import MELANOMA
from dermdistill.evaluation import curves
from dermdistill.metrics import metrics

NV, MEL, BKL, BCC, AKIEC, VASC, DF = range(7)


def test_curve_tables() -> None:
    labels, probabilities = simulated()
    y_true, y_score = labels == MELANOMA, probabilities[:, MELANOMA]
    tables = curves.tables(labels, probabilities[::-1], probabilities, 15)
    roc, pr, reliability, threshold = (tables[name] for name in ("roc", "pr", "reliability", "threshold"))
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(metrics.roc_auc(y_true, y_score))
    assert np.isfinite(roc.to_numpy()).all()
    assert (pr["recall"].iloc[0], pr["recall"].iloc[-1]) == (1.0, 0.0)
    gaps = (reliability["confidence"] - reliability["frequency"]).abs() * reliability["count"]
    assert gaps.sum() / len(labels) == pytest.approx(metrics.calibration_error(y_score, y_true, 15))
    assert reliability["count"].sum() == len(labels)
    assert not tables["reliability_raw"].equals(reliability)  # that of the other probabilities
    assert (threshold["sensitivity"].iloc[0], threshold["specificity"].iloc[0]) == (1.0, 0.0)
    row = threshold[threshold["threshold"] == 0.3].iloc[0]
    assert row["sensitivity"] == pytest.approx((y_score[y_true] >= 0.3).mean())


def test_confusion_rows_are_names() -> None:
    rows = curves.confusion_rows(np.array([NV, DF]), np.array([MEL, DF]))
    assert rows.to_csv(index=False) == "actual,predicted\nnv,mel\ndf,df\n"


@pytest.mark.parametrize("labels", [[NV], [MEL], [NV, NV, BKL], [MEL, MEL]])
def test_one_sided_sets_have_no_roc_and_no_pr_curve(labels: list[int]) -> None:
    uniform = np.full((len(labels), 7), 1 / 7)
    tables = curves.tables(np.array(labels), uniform, uniform, 15)
    assert len(tables["roc"]) == len(tables["pr"]) == 0
