"""Fidelity by hand; what several seeds add to summary, README table and verdicts."""

import math

import numpy as np
import pytest
from helpers import REPOSITORY

from dermdistill import params
from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError
from dermdistill.evaluation import fidelity, model_pairs
from dermdistill.metrics import predictions
from dermdistill.reporting import fragments, protocol_tables, results, tables


def known(rows: list[list[float]], names: str = "abc") -> predictions.Predictions:
    return predictions.build(list(names), list(names), ["nv", "mel", "nv"], np.array(rows))


A = [[0.5, 0.5, 0, 0, 0, 0, 0], [0.2, 0.8, 0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0, 0]]
B = [[0.75, 0.25, 0, 0, 0, 0, 0], [0.8, 0.2, 0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0, 0]]


def test_fidelity_by_hand() -> None:
    found = fidelity.measure(known(A), known(B), 20, 0)
    kl = [0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(2), 0.2 * math.log(0.25) + 0.8 * math.log(4), 0]
    assert found["agreement"] == pytest.approx(2 / 3) and found["kl"] == pytest.approx(np.mean(kl))
    assert found["intervals"]["kl"][0] <= found["kl"] <= found["intervals"]["kl"][1]
    same = fidelity.measure(known(A), known(A), 20, 0)
    assert (same["agreement"], same["kl"]) == (1.0, 0.0)
    assert fidelity.measure(known(B), known(A), 20, 0)["kl"] != found["kl"]  # from the teacher's side


def test_fidelity_needs_the_same_images() -> None:
    with pytest.raises(UserError, match="differ in images"):
        fidelity.measure(known(A), known(B, "abd"), 20, 0)


def figures_of(auc: float) -> dict[str, dict[str, float]]:
    raw = {"melanoma_roc_auc": auc - 0.1, "diagnosis_macro_f1": auc - 0.3}
    return {"melanoma": {"roc_auc": auc}, "diagnosis": {"macro_f1": auc - 0.2}, "raw": raw}


def test_the_summary_adds_the_mean_over_seeds() -> None:
    val = {"teacher_a": figures_of(0.9), "student_b_s0": figures_of(0.8), "student_b_s1": figures_of(0.7)}
    found = tables.summary(val, val)
    assert list(found) == [*val, "student_b"]
    assert found["student_b"]["holdout"] == {"melanoma_roc_auc": 0.75, "macro_f1": 0.55}
    assert found["student_b_s1"]["val"]["melanoma_roc_auc"] == 0.6, "raw where calibration was fitted"


def test_the_readme_shows_seeds_only_when_there_are_several() -> None:
    def family(seeds: int) -> dict[str, dict[str, float | None]]:
        row = {"seeds": seeds, "mean": 0.9, "sd": 0.01, "low": 0.87, "high": 0.93}
        return dict.fromkeys(model_pairs.METRICS, row)

    close = {f"student_b_s{seed}": {"holdout": {"agreement": 0.9, "kl": kl}} for seed, kl in enumerate((0.1, 0.2, 0.6))}
    assert fragments._seeds({"families": {"student_b": family(1)}, "fidelity": close}) == []
    lines = fragments._seeds({"families": {"teacher_a": family(1), "student_b": family(3)}, "fidelity": close})
    assert sum("`student_b` | 3 | 0.900 ± 0.010 [0.870, 0.930]" in line for line in lines) == 1
    assert any(line.endswith("| 0.900 | 0.300 |") for line in lines)
    assert not any("teacher_a" in line for line in lines)
    cells = {line.count("|") for line in lines if line.startswith("|")}
    assert len(cells) == 1


def test_with_several_seeds_the_verdicts_are_those_of_the_means() -> None:
    settings = params.load(REPOSITORY / "params.yaml")
    name, teacher = settings.ship.student, settings.teacher_id
    student, control, int8 = f"student_{name}", f"control_{name}", f"int8_{name}"
    gap = {"difference": 0.02, "low": 0.01, "high": 0.03, "detectable": 0.02}
    pairs = [pair for pair in model_pairs.pairs(settings, []) if pair[0].startswith(("student", "int8"))]
    compared = {
        "pairs": [
            {"a": a, "b": b, "seeds": [3, 1 if b == teacher else 3], "metrics": {"melanoma.roc_auc": gap}}
            for a, b in pairs
        ]
    }
    found = results.verdicts(compared, settings)
    assert len(found) == 3 * len(settings.run.students), "no student is passed over, whatever came out"
    assert [(one.first, one.second) for one in found[:3]] == [
        (f"{student} (3 seeds)", f"{control} (3 seeds)"),
        (f"{student} (3 seeds)", teacher),
        (f"{int8} (3 seeds)", f"{student} (3 seeds)"),
    ]
    assert "better" in tables.verdict(found[0])
    with pytest.raises(UserError, match=rf"lacks {student} against {control}; run `dvc repro compare`"):
        results.verdicts({"pairs": compared["pairs"][1:]}, settings)


def test_every_small_model_has_a_row_of_fidelity() -> None:
    part = {"agreement": 0.9, "kl": 0.1, "intervals": {"agreement": [0.8, 0.95], "kl": None}}
    table = protocol_tables.fidelity_table({"fidelity": {"student_b_s0": {"val": part, "holdout": part}}})
    assert [len(row) for row in table.rows] == [len(table.head)]
    assert len(CLASSES) == 7 and table.rows[0][1] == ("0.900", "0.800 to 0.950", False)
