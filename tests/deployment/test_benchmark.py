"""Taking turns, what is said of the times, and one real measurement of a small file."""

import json
from pathlib import Path

import numpy as np
import pytest
from deployment.test_onnx_export import HEIGHT, WIDTH, exported_bytes

from dermdistill.deployment import benchmark, formats, timing
from dermdistill.deployment.benchmark import Entry


def test_tasks_take_turns_and_warm_up_is_not_counted() -> None:
    calls: list[str] = []
    found = timing.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=4, warmup=2)
    assert calls == ["a", "b"] * 6
    assert found["a"]["wall"].shape == found["b"]["cpu"].shape == (4,) and (found["a"]["wall"] > 0).all()


def test_a_ratio_is_the_median_of_ratios_within_rounds() -> None:
    slow = {"cpu": np.array([2.0, 20.0, 6.0])}
    fast = {"cpu": np.array([1.0, 10.0, 2.0])}  # all twice but one: a busy second round changes nothing
    assert timing.ratio({"slow": slow, "fast": fast}, "slow", "fast") == 2.0
    assert benchmark.ratios({"slow": slow, "fast": fast}, "fast", "cpu") == {"slow": 2.0}


def test_summary_gives_milliseconds_and_throughput() -> None:
    times = {"wall": np.array([0.010, 0.020, 0.030]), "cpu": np.array([0.01, 0.01, 0.01])}
    found = benchmark.summary(times, batch=4, single=True)
    assert found["mean"] == found["p50"] == 20 and found["sd"] == 10 and found["images_per_second"] == 200
    assert found["p90"] == 28 and found["cpu_p50"] == 10
    assert "cpu_p50" not in benchmark.summary(times, batch=4, single=False)


def test_where_int8_is_slower_it_is_said() -> None:
    rows = {"student_a_s0 onnx": {"p50": 2.0}, "int8_a_s0 onnx_int8": {"p50": 3.0}, "int8_b_s0 onnx_int8": {"p50": 9.0}}
    rows |= {"student_a_s0 executorch": {"p50": 2.0}, "student_a_s0 executorch_int8": {"p50": 1.0}}
    assert benchmark.sentences({"2 threads, batch 1": rows}) == [
        "With 2 threads, batch 1, int8_a_s0 onnx_int8 is slower than student_a_s0 onnx: it takes 1.50 times as long."
    ]
    rows["int8_a_s0 onnx_int8"]["p50"] = 1.9
    assert benchmark.sentences({"2 threads, batch 1": rows}) == [
        "No INT8 file is slower than its FP32 file in the same runtime."
    ]


def test_processor_time_decides_where_every_row_has_it() -> None:
    rows = {"student_a_s0 onnx": {"p50": 2.0, "cpu_p50": 1.0}, "int8_a_s0 onnx_int8": {"p50": 1.0, "cpu_p50": 2.0}}
    assert "2.00 times" in benchmark.sentences({"1 thread, batch 1": rows})[0]


def test_what_cannot_be_held_to_a_condition_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert benchmark.applies("onnx", 1, 32) and benchmark.applies("executorch", 4, 1)
    assert not benchmark.applies("executorch", 1, 1) and not benchmark.applies("executorch", 4, 32)


def test_one_file_is_measured(tmp_path: Path) -> None:
    (tmp_path / "fp32.onnx").write_bytes(exported_bytes())
    entry, size = Entry("student_a_s0", "onnx", tmp_path / "fp32.onnx"), (HEIGHT, WIDTH)
    found = benchmark.static(entry, size)
    assert found["bytes"] == len(exported_bytes()) and found["load_ms"] > 0
    ballast = np.ones(2**28, np.uint8)  # of this process, which the fresh one must not count; nor is torch in it
    assert 20 < benchmark.static(entry, size)["peak_memory_mb"] < 250 and ballast[-1] == 1
    times = benchmark.measure([entry, entry._replace(kind="executorch")], size, 1, 32, rounds=3)
    assert set(times) == {"student_a_s0 onnx"}
    told = benchmark.machine()
    assert told["cores"] >= 1 and told["processor"]
    json.dumps(told)
    assert set(formats.FILES) >= {"onnx", "executorch"}


def test_the_command_on_one_jpeg(tmp_path: Path) -> None:
    from dermdistill.core.classes import CLASSES
    from dermdistill.deployment import onnx_export

    (tmp_path / "raw.onnx").write_bytes(exported_bytes())
    fitted = {"temperature": 1.0, "bias": dict.fromkeys(CLASSES, 0.0)}
    thresholds = {"sensitivity": 0.1, "youden": 0.2, "f1": 0.3}
    onnx_export.ship(tmp_path / "raw.onnx", tmp_path / "m.onnx", fitted | {"thresholds": thresholds}, {"id": "a"})
    found = benchmark.predict_one_jpeg(tmp_path / "m.onnx", rounds=2)
    assert set(found) == {"decode_ms", "predict_ms", "command_ms", "decode_cpu_ms", "predict_cpu_ms"}
    assert found["command_ms"] > found["decode_ms"] + found["predict_ms"] > 0
