"""The ablation: its runs, what counts as done, the ranking; the summary; and three runs through DVC's queue."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import REPOSITORY, change_params, cloned, environment, git, write_params

from dermdistill import ablation, params, presets, summary
from dermdistill.core.classes import CLASSES
from dermdistill.core.files import read_json, write_json, write_text
from dermdistill.core.model_id import ModelId
from dermdistill.errors import UserError
from dermdistill.evaluation import ablation as ranking
from dermdistill.evaluation import bootstrap, weighted_metrics
from dermdistill.metrics import predictions
from dermdistill.reporting import readme, report, verify

COMMITTED = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
OF_TINY = {  # whose cut has more to shape than the student that the committed ablation is of
    "student": "tiny",
    "epochs": 5,
    "shapes": {
        "deeper": {"cut": {"blocks": 2}},
        "enlarged": {"size": [225, 300]},
        "wider_head": {"cut": {"head": 1280}},
    },
}
TINY = COMMITTED | {"ablation": COMMITTED["ablation"] | OF_TINY}


@pytest.fixture
def reported(report_copy: Path) -> Path:
    """A project with a report, whose ablation is of ``tiny``."""
    change_params(report_copy, {f"ablation.{name}": value for name, value in OF_TINY.items()})
    return report_copy


def test_cells_are_control_grid_methods_and_shapes_of_one_budget() -> None:
    found = ablation.runs(params.check(TINY, "params.yaml"))
    grid = TINY["ablation"]
    budget = {"students.tiny.epochs": grid["epochs"]}
    ways = 1 + len(grid["temperatures"]) * len(grid["alphas"]) + len(grid["methods"])
    assert len(found) == ways + len(grid["shapes"])
    assert found["control"] == {"kd.method": "kd", "kd.temperature": 1.0, "kd.alpha": 0.0} | budget
    assert found["kd_T4_a0.9"] == {"kd.method": "kd", "kd.temperature": 4.0, "kd.alpha": 0.9} | budget
    assert found["dist"] == {"kd.method": "dist"} | budget and found["at"]["kd.num_views"] == 0
    assert found["enlarged"] == {"students.tiny.size": [225, 300]} | budget, "distilled as the block kd says"
    assert all(changes.items() >= budget.items() for changes in found.values())
    shape = ablation.expected_inputs(TINY, found["deeper"])["student"]
    assert shape["cut"] == TINY["students"]["tiny"]["cut"] | grid["shapes"]["deeper"]["cut"]


def test_no_committed_run_is_outdated() -> None:
    """Renaming a parameter would make every run of an afternoon start again, unless its record is renamed too."""
    assert ablation.missing(REPOSITORY) == []


def test_a_shape_that_is_none_is_refused() -> None:
    for shapes, said in (
        ({"control": {"size": [300, 400]}}, "control is the name of another run"),
        ({"dist": {"size": [300, 400]}}, "dist is the name of another run"),
        ({"teacher_ensemble": {"size": [300, 400]}}, "teacher_ensemble is the name of another run or a teacher"),
        ({"long": {"epochs": 40}}, "long changes epochs, but all runs have those of ablation.epochs"),
        ({"huge": {"szie": [300, 400]}}, "unknown parameter students.tiny.szie"),
        ({"huge": {"cut": {"stages": "all"}}}, "students.tiny.cut.stages"),
    ):
        content = TINY | {"ablation": TINY["ablation"] | {"shapes": shapes}}
        with pytest.raises(UserError, match=said):
            ablation.expected_inputs(content, ablation.runs(params.check(content, "params.yaml"))[next(iter(shapes))])


def test_a_run_without_the_ablated_student_is_a_run_but_no_ablation() -> None:
    for changes, said in (
        ({"students": ["mobilenetv3"]}, r"ablation.student names 'tiny', which is not in run.students \(mobilenetv3\)"),
        ({"seeds": [1, 2]}, r"ablation.seed names 0, which is not in run.seeds \(1, 2\)"),
    ):
        ship = COMMITTED["ship"] | {"student": "mobilenetv3", "seed": 2}
        settings = params.check(TINY | {"run": TINY["run"] | changes, "ship": ship}, "params.yaml")
        with pytest.raises(UserError, match=said):
            ablation.runs(settings)


def test_every_committed_run_is_accepted_and_stands_for_another_training() -> None:
    stored = COMMITTED | {"kd": COMMITTED["kd"] | {"num_views": 3}}  # targets stored for all but methods of features
    for content in (COMMITTED, TINY, stored):
        runs = ablation.runs(params.check(content, "params.yaml"))
        found = [json.dumps(ablation.expected_inputs(content, changes)) for changes in runs.values()]
        assert len(set(found)) == len(found)


def test_a_run_is_done_until_a_parameter_it_depends_on_changes(tmp_path: Path) -> None:
    write_params(tmp_path, TINY)
    every = ablation.missing(tmp_path)
    runs = ablation.runs(params.check(TINY, "params.yaml"))
    assert every == list(runs)
    folder = tmp_path / ablation.FOLDER
    folder.mkdir(parents=True)
    for name in ("control", "kd_T1_a0.5", "dist"):
        (folder / f"{name}.csv").write_text("some predictions")
    kept = ("control", "kd_T1_a0.5", "dist", "dkd")  # of the last there is no file
    write_json(folder / "runs.json", {name: ablation.expected_inputs(TINY, runs[name]) for name in kept})
    assert set(every) - set(ablation.missing(tmp_path)) == {"control", "kd_T1_a0.5", "dist"}
    for changes, left in (
        ({"kd.methods.dist.beta": 2.0}, {"control", "kd_T1_a0.5"}),
        ({"kd.alpha": 0.3}, {"control", "kd_T1_a0.5"}),  # the grid's runs have their own
        ({"evaluate.bins": 5, "quantize.seed": 3}, {"control", "kd_T1_a0.5", "dist"}),
        ({"students.tiny.epochs": 3}, {"control", "kd_T1_a0.5", "dist"}),  # runs have their own
        ({"ablation.epochs": 3}, set()),
        ({"students.tiny.lr": 0.5}, set()),
        ({f"teachers.{TINY['kd']['teachers'][0]}.epochs": 1}, {"control"}),  # who has no teacher
        ({"kd.num_views": 7}, {"control", "kd_T1_a0.5", "dist"}),  # whose five epochs show the first five
        ({"kd.num_views": 4}, set()),
        ({"train.ema": 0.5}, set()),
        ({"audit.inliers": 12}, set()),  # other duplicates would be another split
    ):
        write_params(tmp_path, TINY)
        change_params(tmp_path, changes)
        assert set(every) - set(ablation.missing(tmp_path)) == left, changes


def test_an_experiment_of_an_older_params_file_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = TINY | {"ablation": TINY["ablation"] | {"temperatures": [], "methods": [], "shapes": {}}}
    write_params(tmp_path, content)
    settings = params.load()
    same = presets.merged(content, {"kd": {"alpha": 0.0, "temperature": 1.0}})
    same = presets.merged(same, {"students": {"tiny": {"epochs": content["ablation"]["epochs"]}}})
    monkeypatch.setattr(ablation, "_references", lambda name: ["refs/exps/some"])
    for older, found in ((True, set()), (False, {"control"})):
        shown = same | {"ablation": {k: v for k, v in same["ablation"].items() if not older or k != "shapes"}}
        monkeypatch.setattr(ablation, "_call", lambda *_, shown=shown: yaml.safe_dump(shown))
        monkeypatch.setattr(ablation, "_cached", lambda path, revision: "predictions")
        ablation.collect(settings, content)
        assert set(ablation.collected()) == found


def run(root: Path, name: str, quality: float) -> None:
    """Predictions on val that are right more often the higher the quality."""
    table = pd.read_csv(root / "predictions/val/control_tiny_s0.csv")
    columns = [column for column in table if column.startswith("p_")]
    random = np.random.default_rng(len(name))
    truth = np.stack([table["dx"] == column[2:] for column in columns], axis=1)
    scores = np.exp(quality * truth + random.normal(size=truth.shape))
    table[columns] = scores / scores.sum(axis=1, keepdims=True)
    (root / ablation.FOLDER).mkdir(parents=True, exist_ok=True)
    table.to_csv(root / ablation.FOLDER / f"{name}.csv", index=False)


def test_cells_are_ranked_on_val_with_paired_differences(reported: Path) -> None:
    settings = params.load(reported / "params.yaml")
    run(reported, "control", 4.0)
    run(reported, "kd_T1_a0.5", 3.0)
    run(reported, "dist", 0.5)
    text = report.build_ablation(reported, settings, ["control", "dist", "kd_T1_a0.5"])
    found = read_json(reported / ranking.METRICS)
    names = [row["name"] for row in found["rows"]]
    assert found["best"] == "kd_T1_a0.5" and names.index("kd_T1_a0.5") < names.index("dist")
    assert set(names) == {"kd_T1_a0.5", "dist", "control", settings.teacher_id}
    assert names[0] == "control", "the best of all, and yet not the best way to distil"
    values = [row["metrics"][ranking.AUC]["value"] for row in found["rows"]]
    assert values == sorted(values, reverse=True)
    worst = next(row for row in found["rows"] if row["name"] == "dist")
    known = predictions.read(reported / ablation.FOLDER / "dist.csv")
    auc = bootstrap.value(weighted_metrics.roc_auc(known.melanoma, known.p_melanoma), known.lesion_id)
    assert worst["metrics"][ranking.AUC]["value"] == pytest.approx(auc, abs=1e-6)
    assert worst["from_best"]["verdict"] == "worse" and worst["from_best"]["high"] < 0
    assert worst["from_control"]["difference"] < worst["from_best"]["difference"]
    assert worst["metrics"]["macro-F1"]["from_control"]["verdict"] == "worse"
    assert "from_control" not in worst["metrics"][ranking.AUC], "which has a column of its own"
    assert "**`kd_T1_a0.5`**" in text and text.count("**") == 2
    line = next(line for line in text.splitlines() if line.startswith("| `dist`"))
    assert line.count(" ↓") == 3 and " ↑" not in line
    assert (reported / report.ABLATION_FIGURE).stat().st_size > 1000


def test_shapes_stand_beside_the_student_as_it_is_with_what_they_cost(reported: Path) -> None:
    settings = params.load(reported / "params.yaml")
    for name, quality in (("kd", 2.0), ("dist", 1.0), ("enlarged", 6.0), ("deeper", 0.5)):
        run(reported, name, quality)
    write_json(reported / ranking.COSTS, {"kd": {"parameters": 1_027_847, "macs": 150_000_000}})
    write_text(reported / readme.ABLATION, "Before.\n<!-- ablation -->\nold\n<!-- /ablation -->\nAfter.\n")
    text = report.build_ablation(reported, settings, ["kd", "dist", "enlarged", "deeper"])
    found = read_json(reported / ranking.METRICS)
    rows = {row["name"]: row for row in found["rows"]}
    assert found["rows"][0]["name"] == "enlarged" and found["best"] == "kd", "a shape is no way to distil"
    assert rows["enlarged"]["from_asis"]["verdict"] == "better" and rows["deeper"]["from_asis"]["verdict"] == "worse"
    assert "from_best" not in rows["deeper"] and "shape" not in rows["dist"] and rows["kd"]["shape"] == {}
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.split("`")[1] for line in lines[-3:]] == ["kd", "enlarged", "deeper"]
    assert "nothing | 1.03 M | 150 M" in lines[-3] and "`size: [225, 300]` | – | –" in lines[-2]
    document = (reported / readme.ABLATION).read_text()
    assert document.startswith("Before.") and document.endswith("After.\n") and text.strip() in document
    assert "Not run yet: `ls`, `dkd`, `at`, `feature`, `wider_head`." in text
    assert f"{settings.ablation.epochs} epochs per run" in text
    assert verify.verify(reported) == []
    write_text(reported / readme.ABLATION, document.replace("150 M", "120 M"))
    assert any(line.startswith(f"{readme.ABLATION}:line") for line in verify.verify(reported))


def test_what_a_shape_costs_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(tmp_path, TINY)
    monkeypatch.chdir(tmp_path)
    found = ablation.costs(params.load(), ["kd", "enlarged", "wider_head", "dist"])
    assert set(found) == {"kd", "enlarged", "wider_head"}
    channels = 192  # of the first block of Lite0's sixth stage, which the head widens from 512 to 1280
    head = (1280 - 512) * (channels + 2 + len(CLASSES))
    assert found["wider_head"]["parameters"] - found["kd"]["parameters"] == head
    assert found["enlarged"]["parameters"] == found["kd"]["parameters"]
    assert 2.1 < found["enlarged"]["macs"] / found["kd"]["macs"] < 2.4, "1.5 times as high and as wide"


def test_the_holdout_does_not_change_the_ranking(reported: Path) -> None:
    settings = params.load(reported / "params.yaml")
    run(reported, "dist", 1.0)
    report.build_ablation(reported, settings, ["dist"])
    for path in (reported / "predictions/holdout").iterdir():
        path.unlink()
    assert ranking.recompute(reported, settings) == read_json(reported / ranking.METRICS)


def test_a_ranking_outlives_its_teacher(reported: Path) -> None:
    settings = params.load(reported / "params.yaml")
    run(reported, "dist", 1.0)
    report.build_ablation(reported, settings, ["dist"])
    other = settings.model_copy(update={"kd": settings.kd.model_copy(update={"teachers": ["another"], "alpha": 0.123})})
    (reported / f"predictions/val/{settings.teacher_id}.csv").unlink()
    assert ranking.recompute(reported, other) == read_json(reported / ranking.METRICS)


def test_a_wrong_number_of_the_ranking_is_found(reported: Path) -> None:
    run(reported, "dist", 1.0)
    report.build_ablation(reported, params.load(reported / "params.yaml"), ["dist"])
    assert verify.verify(reported) == []
    content = read_json(reported / ranking.METRICS)
    content["rows"][0]["metrics"][ranking.AUC]["value"] += 0.01
    write_json(reported / ranking.METRICS, content)
    assert any(line.startswith(f"{ranking.METRICS}:rows[0]") for line in verify.verify(reported))


# The summary ------------------------------------------------------------------------------------------------------


def test_the_summary_tells_complete_outdated_missing_and_unrecorded(reported: Path) -> None:
    lr = params.load(reported / "params.yaml").quantize.qat.lr
    lock = f"stages: {{quantize@tiny-0: {{params: {{params.yaml: {{quantize.qat.lr: {lr}}}}}}}}}"
    assert "lr: 3e-05}" in lock  # which YAML 1.1 takes for text
    (reported / "dvc.lock").write_text(lock)
    settings = params.load(reported / "params.yaml")
    states = {row.model: row.state for row in summary.rows(reported, settings)}
    assert states["int8_tiny_s0"] == states["control_tiny_s0"] == "unrecorded"  # the lock lacks other stages
    made = {
        stage
        for name in settings.evaluated_ids()
        for stage in summary._stages(ModelId.parse(name), settings.kd.teachers)
    }
    every = {stage: {} for stage in sorted(made)}
    others = yaml.safe_dump(
        {stage: {} for stage in every if stage != "quantize@tiny-0"}, default_flow_style=True, width=10**6
    )
    (reported / "dvc.lock").write_text(lock[:-1] + ", " + others.strip()[1:])
    found = {row.model: row for row in summary.rows(reported, settings)}
    assert found["int8_tiny_s0"].state == "complete"
    (reported / "predictions/val/int8_tiny_s0.csv").unlink()
    recorded = {"params": {"params.yaml": {"students.tiny": {"lr": 0.123}}}}
    (reported / "dvc.lock").write_text(yaml.safe_dump({"stages": every | {"distill@tiny-0": recorded}}))
    found = {row.model: row for row in summary.rows(reported, params.load(reported / "params.yaml"))}
    assert found["control_tiny_s0"].state == "complete"
    assert found["student_tiny_s0"].state == "outdated"
    assert (found["int8_tiny_s0"].state, found["int8_tiny_s0"].command) == ("missing", "dvc repro evaluate")
    text = "\n".join(summary.lines(reported))
    assert "`dvc repro evaluate`" in text and f"0 of {len(ablation.missing(reported))} runs; `make ablation`" in text
    assert "best control on val: control_" in text
    teacher = params.load(reported / "params.yaml").kd.teachers[0]
    recorded = {"params": {"params.yaml": {f"teachers.{teacher}": {"lr": 0.123}}}}
    (reported / "dvc.lock").write_text(yaml.safe_dump({"stages": every | {f"train_teacher@{teacher}": recorded}}))
    found = {row.model: row.state for row in summary.rows(reported, params.load(reported / "params.yaml"))}
    assert (
        found[f"teacher_{teacher}"] == found["student_tiny_s0"] == "outdated" and found["control_tiny_s0"] == "complete"
    )


def test_the_summary_says_why_the_ablation_cannot_run_and_all_the_rest(reported: Path) -> None:
    change_params(reported, {"train.task": "melanoma"})
    text = "\n".join(summary.lines(reported))
    assert "ablation   cannot run: params.yaml with {'kd.method': 'ls'" in text and "degenerates" in text
    assert "best control on val: control_" in text
    change_params(reported, {"train.task": "diagnosis", "ablation.seed": 9})
    text = "\n".join(summary.lines(reported))
    assert "ablation   cannot run: ablation.seed names 9" in text and "best control on val: control_" in text


def test_a_waiting_run_of_other_parameters_is_queued_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = {"temperatures": [], "methods": ["kd", "ls", "dist"], "shapes": {}}
    content = TINY | {"ablation": TINY["ablation"] | few}
    write_params(tmp_path, content)
    settings = params.load()
    wanted = ablation.runs(settings)
    tasks = {"control": "Queued", "kd": "Queued", "ls": "Running", "dist": "Failed"}
    known = {name: ablation.expected_inputs(content, wanted[name]) for name in tasks}
    known["kd"] = known["ls"] = known["kd"] | {"seed": 7}  # queued with another seed, as if it were
    queue = {f"ablation_tiny_{name}": ablation.Task(name, state) for name, state in tasks.items()}
    monkeypatch.setattr(ablation, "_queue", lambda: (queue, 2))
    monkeypatch.setattr(ablation, "_inputs_at", known.get)
    monkeypatch.setattr(ablation, "_references", lambda name: [])
    said: list[str] = []
    monkeypatch.setattr(ablation, "_call", lambda *command: said.append(" ".join(command)) or "")
    ablation.enqueue(settings, wanted)
    assert [line for line in said if "remove" in line] == [
        f"dvc queue remove ablation_tiny_{n}" for n in ("kd", "dist")
    ]
    assert [line.split()[5] for line in said if "--queue" in line] == ["ablation_tiny_kd", "ablation_tiny_dist"]
    start = "dvc queue start --jobs 2"
    assert ablation.alive(settings, "2") and start not in said
    monkeypatch.setattr(ablation, "_queue", lambda: (queue, 1))  # a worker died
    assert ablation.alive(settings, "2") and said[-1] == start
    monkeypatch.setattr(ablation, "_queue", lambda: ({"ablation_tiny_ls": queue["ablation_tiny_dist"]}, 0))
    assert not ablation.alive(settings, "2") and said.count(start) == 1


def test_every_command_of_the_summary_names_a_stage() -> None:
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    settings = params.check(COMMITTED | {"kd": COMMITTED["kd"] | {"teachers": COMMITTED["run"]["teachers"]}}, "")
    for model in [*settings.model_ids(), *settings.baseline_ids(), "teacher_ensemble"]:
        made = summary._stages(ModelId.parse(model), settings.kd.teachers)
        assert {name.split("@")[0] for name in made} <= set(stages)


def test_the_summary_is_quick_and_needs_no_heavy_library() -> None:
    code = "import sys; from dermdistill.summary import lines; lines(); print(*sys.modules)"
    start = os.times().children_user
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=True
    )
    assert os.times().children_user - start < 3
    assert not {"torch", "dvc", "mlflow", "matplotlib", "pandas"} & set(done.stdout.split())


# The queue --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_three_runs_through_the_queue_and_nothing_twice(pipeline: Path, tmp_path: Path) -> None:
    clone = cloned(pipeline, tmp_path / "clone")
    few = {
        "student": "tiny",
        "temperatures": [],
        "methods": [],
        "epochs": 2,
        "shapes": {"narrow": {"cut": {"head": 8}}},  # and beside it the student as it is
    }
    change_params(clone, {f"ablation.{name}": value for name, value in few.items()})
    git(clone, "commit", "--quiet", "--all", "--message", "Three runs")

    def make(jobs: str = "2") -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        command = [sys.executable, "-m", "dermdistill.ablation", jobs, "1"]
        done = subprocess.run(command, cwd=clone, env=environment() | {"PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    before = (clone / "predictions/val/student_tiny_s0.csv").read_bytes()
    said = make("1")
    assert said.count("collected into") == 3
    first = min(path.stat().st_mtime for path in (clone / ablation.FOLDER).glob("*.csv"))
    ends = git(clone, "for-each-ref", "--format=%(committerdate:unix) %(refname)", "refs/exps").splitlines()
    last = max(int(line.split()[0]) for line in ends if "/ablation_tiny_" in line)
    assert first < last, "each was collected as soon as it was done"
    stored = {path.stem: path.read_bytes() for path in (clone / ablation.FOLDER).glob("*.csv")}
    teacher = (clone / "predictions/val/teacher_ensemble.csv").read_bytes()
    assert stored.pop("teacher_ensemble") == teacher  # the predictions the runs are ranked against
    assert set(stored) == {"control", "kd", "narrow"} and len({*stored.values(), before}) == 4
    assert (clone / "predictions/val/student_tiny_s0.csv").read_bytes() == before  # the working copy was left alone
    assert "collected" not in make()
    git(clone, "add", "--all")
    again = tmp_path / "again"
    (clone / ablation.FOLDER / "narrow.csv").rename(again)
    assert make().count("collected into") == 1  # from the experiment that is still there
    assert (clone / ablation.FOLDER / "narrow.csv").read_bytes() == again.read_bytes()
    assert ablation.missing(clone) == []


def test_a_run_that_cannot_be_is_refused_before_anything_runs(project: Path) -> None:
    change_params(project, {"students.smaller.mixup": 0.2, "ablation.methods": ["dkd"]})
    with pytest.raises(UserError, match=r"params.yaml with .*dkd.*set mixup of student smaller to 0"):
        ablation.main()
