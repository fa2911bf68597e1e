"""How a value is shown, and what several seeds add to summary, tables and verdicts."""

import pytest
from helpers import REPOSITORY

from dermdistill import params
from dermdistill.errors import UserError
from dermdistill.evaluation import model_pairs
from dermdistill.reporting import render, results, tables


def metrics_of(auc: float) -> dict[str, dict[str, float]]:
    raw = {"melanoma_roc_auc": auc - 0.1, "diagnosis_macro_f1": auc - 0.3}
    return {"melanoma": {"roc_auc": auc}, "diagnosis": {"macro_f1": auc - 0.2}, "raw": raw}


def test_the_summary_adds_the_mean_over_seeds() -> None:
    val = {"teacher_a": metrics_of(0.9), "student_b_s0": metrics_of(0.8), "student_b_s1": metrics_of(0.7)}
    found = results.summary(val, val, {"other/derm7pt/other_val": val})
    assert list(found) == [*val, "student_b"]
    assert found["student_b"]["holdout"] == {"melanoma_roc_auc": 0.75, "macro_f1": 0.55}
    assert found["student_b"]["derm7pt/other_val"] == found["student_b"]["holdout"]
    assert found["student_b_s1"]["val"]["melanoma_roc_auc"] == 0.6, "raw where calibration was fitted"


def test_the_readme_shows_seeds_only_when_there_are_several() -> None:
    def family(seeds: int) -> dict[str, dict[str, float | None]]:
        row = {"seeds": seeds, "mean": 0.9, "sd": 0.01, "low": 0.87, "high": 0.93}
        return dict.fromkeys(model_pairs.METRICS, row)

    close = {f"student_b_s{seed}": {"holdout": {"agreement": 0.9, "kl": kl}} for seed, kl in enumerate((0.1, 0.2, 0.6))}
    assert tables.seeds_table({"families": {"student_b": family(1)}, "fidelity": close}).rows == []
    compared = {"families": {"teacher_a": family(1), "student_b": family(3)}, "fidelity": close}
    lines = render.markdown(tables.seeds_table(compared)).splitlines()
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
    found = results.comparisons(compared, settings)
    assert len(found) == 3 * len(settings.run.students), "no student is passed over, whatever came out"
    assert [(one.first, one.second) for one in found[:3]] == [
        (f"{student} (3 seeds)", f"{control} (3 seeds)"),
        (f"{student} (3 seeds)", teacher),
        (f"{int8} (3 seeds)", f"{student} (3 seeds)"),
    ]
    assert "better" in render.words("verdict", one=found[0])
    with pytest.raises(UserError, match=rf"lacks {student} against {control}; run `dvc repro compare`"):
        results.comparisons({"pairs": compared["pairs"][1:]}, settings)


def test_every_small_model_has_a_row_of_fidelity() -> None:
    part = {"agreement": 0.9, "kl": 0.1, "intervals": {"agreement": [0.8, 0.95], "kl": None}}
    table = render.table("fidelity", render.named({"student_b_s0": {"val": part, "holdout": part}}))
    assert [len(row) for row in table.rows] == [len(table.head)]
    assert table.rows[0][:3] == [
        render.Cell("student_b_s0"),
        render.Cell("0.900", "0.800 to 0.950"),
        render.Cell("0.100"),
    ]


def test_a_column_shows_its_value_in_its_format() -> None:
    row = {
        "a": {"b": 0.12345, "intervals": {"b": [0.1, None], "ece": [0.1, 0.2]}, "ece": 0.15},
        "n": 1234,
        "x_y": "x_y",
    }
    row |= {"share": 0.256, "none": None, "negative": -0.5, "dotted.key": 1.0, "bytes": 1_259_767, "p": 0.0002}
    for how, cell in {
        "a.b": ("0.123", ""),
        "a.b ±": ("0.123", ""),  # an interval with an undefined bound
        "a.ece ±": ("0.150", ""),  # never with an interval
        "n": ("1,234", ""),
        "none": ("–", ""),
        "none|percent": ("–", ""),
        "negative": ("−0.500", ""),
        "dotted.key|number 1": ("1.0", ""),
        "share|percent 1": ("25.6 %", ""),
        "bytes|millions 2": ("1.26", ""),
        "a.b|significant 2": ("0.12", ""),
        "p|p_value": ("< 0.001", ""),
        "a.b → none": ("0.123 → –", ""),
        "n / share": ("1,234 / 0.256", ""),
    }.items():
        assert render._shown(row, how)[:2] == cell, how
    assert render._shown(row, "x_y|code") == render.Cell("x_y", code=True)
    with pytest.raises(UserError, match=r"metrics lack a\.c"):
        render._shown(row, "a.c")


def test_markdown_escapes_what_would_break_a_table() -> None:
    rows = [[render.Cell("a_b", code=True), render.Cell("|x|", "1 to 2")], [render.Cell("c"), render.Cell("")]]
    lines = render.markdown(render.Table("Caption.", ["m", "v"], rows, strong="a_b")).splitlines()
    assert lines == ["| m | v |", "| --- | --- |", "| **`a_b`** | \\|x\\| [1, 2] |", "| c |  |", "", "Caption."]
