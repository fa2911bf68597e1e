"""The frontier holds exactly what nothing beats, and the figures show every model."""

from typing import Any

import numpy as np
import pytest
from helpers import REPOSITORY

from dermdistill import params
from dermdistill.errors import UserError
from dermdistill.evaluation import pareto
from dermdistill.reporting import model_figures, style

MODELS = ["teacher_a", "student_b_s0", "int8_b_s0"]
ALONE = {model: [model] for model in MODELS}


def measured(auc: list[float | None]) -> tuple[dict[str, Any], dict[str, Any]]:
    entries = ["teacher_a onnx", "student_b_s0 onnx", "int8_b_s0 onnx_int8"]
    benchmark = {
        "static": {name: {"bytes": size} for name, size in zip(entries, (13e6, 4e6, 1e6), strict=True)},
        "latency": {pareto.CONDITION: {n: {"cpu_p50": ms} for n, ms in zip(entries, (5.0, 3.0, 2.0), strict=True)}},
        "models": {model: {"parameters": 10**6} for model in MODELS},
    }
    one = {m: {"melanoma": {"roc_auc": a}, "diagnosis": {"macro_f1": 0.6}} for m, a in zip(MODELS, auc, strict=True)}
    return benchmark, {"val": one, "holdout": one}


def test_the_frontier_holds_what_nothing_beats() -> None:
    cost, score = np.array([1.0, 2.0, 3.0, 3.0, 4.0]), np.array([0.5, 0.7, 0.6, 0.8, 0.8])
    assert pareto.frontier(cost, score).tolist() == [True, True, False, True, False]
    assert pareto.frontier(np.ones(2), np.ones(2)).tolist() == [True, True]  # equals do not beat each other
    assert pareto.frontier(np.array([1.0, 2.0]), np.array([np.nan, 0.5])).tolist() == [False, True]


def test_points_carry_costs_scores_and_frontier() -> None:
    table = pareto.points(ALONE, 1, *measured([0.92, 0.90, 0.91])).set_index("model")
    assert table["megabytes"].tolist() == [13, 4, 1] and table["latency_ms"].tolist() == [5, 3, 2]
    assert table["frontier_melanoma_auc_megabytes"].tolist() == [True, False, True]
    assert table["frontier_macro_f1_latency_ms"].tolist() == [False, False, True]
    figure = model_figures.pareto_front(table.reset_index(), [MODELS])
    assert len(figure.axes) == 4
    for axes in figure.axes:
        assert set(MODELS) <= {text.get_text() for text in axes.texts}


def test_a_mean_of_teachers_costs_all_of_them_and_all_their_passes() -> None:
    benchmark, metrics = measured([0.92, 0.90, 0.91])
    for part in metrics.values():
        part["teacher_ensemble"] = part["teacher_a"]
    members = {"teacher_ensemble": ["teacher_a", "student_b_s0"], "student_b_s0": ["student_b_s0"]}
    table = pareto.points(members, 4, benchmark, metrics).set_index("model")
    assert table["latency_ms"].tolist() == [4 * (5 + 3), 3]
    assert table["megabytes"].tolist() == [17, 4] and table["parameters"].tolist() == [2 * 10**6, 10**6]


def test_a_bar_for_each_model_and_format() -> None:
    benchmark, _ = measured([0.92, 0.90, 0.91])
    axes = model_figures.latencies(benchmark).axes[0]
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert named == ["teacher_a onnx", "student_b_s0 onnx", "int8_b_s0 onnx_int8"]  # drawn upwards: the fastest on top
    assert [bar.get_width() for bar in axes.patches] == [5.0, 3.0, 2.0]


def test_the_same_table_gives_the_same_files(tmp_path: Any) -> None:
    for suffix in ("png", "svg"):
        for name in ("a", "b"):
            figure = model_figures.pareto_front(pareto.points(ALONE, 1, *measured([0.92, 0.90, 0.91])), [MODELS])
            style.save(figure, tmp_path / f"{name}.{suffix}")
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_a_model_that_was_not_timed_is_named() -> None:
    benchmark, metrics = measured([0.92, 0.90, 0.91])
    del benchmark["static"]["int8_b_s0 onnx_int8"]
    with pytest.raises(UserError, match=r"lacks int8_b_s0; run `dvc repro benchmark`"):
        pareto.points(ALONE, 1, benchmark, metrics)


def test_the_models_are_the_deployed_seed_of_every_student_and_their_teachers() -> None:
    settings = params.load(REPOSITORY / "params.yaml")
    seed, teachers = settings.ship.seed, [f"teacher_{name}" for name in settings.kd.teachers]
    chains = pareto.chains(settings)
    assert chains == [(settings.teacher_id, f"student_{n}_s{seed}", f"int8_{n}_s{seed}") for n in settings.run.students]
    networks = pareto.networks(settings)
    assert networks[settings.teacher_id] == teachers
    assert set(networks) == {settings.teacher_id, *teachers} | {model for chain in chains for model in chain}
    several = settings.model_copy(update={"kd": settings.kd.model_copy(update={"teachers": ["a", "b"]})})
    assert pareto.networks(several)["teacher_ensemble"] == ["teacher_a", "teacher_b"]
    assert pareto.networks(several)["teacher_b"] == ["teacher_b"]
