"""The README keeps its word: every line of "How to" runs, and what it links to exists."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import REPOSITORY, cloned, dvc, environment, git, this_python_first, write_documents

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([^|`]+) \| (.+) \|$", README.split("## How to")[1].split("\n## ")[0], re.M))
del ROWS["to"]
ELSEWHERE = {  # row → the test that runs it; most take minutes and are not run twice
    "use other data or your own split": "test_splits.py::test_a_frozen_split_is_kept_and_its_duplicates_are_named",
    "distil in another way": "test_losses.py::test_every_method_trains_a_student_of_its_own",
    "learn from several teachers": "test_experiments.py::test_students_depend_on_their_own_teachers_alone",
    "compare all ways on val": "test_ablation.py::test_three_runs_through_the_queue_and_nothing_twice",
    "see what is complete or missing": "test_ablation.py::test_the_summary_is_quick_and_needs_no_heavy_library",
    "train on several GPUs or machines": "test_distributed.py::test_two_processes_end_with_the_weights_of_one",
    "start from weights of your own, fine-tune": "test_models.py::test_a_file_of_timms_own_weights_is_the_start",
    "run a preset": "test_experiments.py::test_a_preset_becomes_an_experiment_in_a_copy",
    "share pixels and weights": "test_experiments.py::test_what_one_pushed_another_pulls_and_trains_nothing",
    "add a teacher": "test_experiments.py::test_alpha_retrains_no_control_and_a_new_teacher_no_old_one",
}
HERE = {
    "get the data",
    "run what changed",
    "try another α",
    "use the deployed model",
    "test it on other images",
    "see curves and cases",
    "recompute the numbers",
}


def commands(row: str) -> list[str]:
    return re.findall(r"`([^`]+)`", ROWS[row])


def test_each_thing_in_three_lines_and_each_run() -> None:
    assert len(ROWS) >= 10 and set(ROWS) == HERE | set(ELSEWHERE)
    for row, name in ELSEWHERE.items():
        file, test = name.split("::")
        assert any(f"def {test}(" in path.read_text() for path in (REPOSITORY / "tests").rglob(file)), row
    assert all(len(commands(row)) <= 7 for row in ROWS)


def test_what_the_readme_shows_and_links_to_exists() -> None:
    for name in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README):
        assert (REPOSITORY / name).exists(), name
    shown = re.findall(r"!\[([^]]*)\]\(([^)]+)\)", README)
    assert shown and all(len(text) > 20 and path.startswith("plots/figures/") for text, path in shown)


def test_every_target_of_make_is_explained_and_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z]+)", README)):
        assert re.search(rf"^{target}:.*## ", makefile, re.M), target


@pytest.fixture(scope="module")
def clone(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the phantom's repository with everything pulled, and what `make` and `verify` need beside it."""
    dvc(pipeline, "push", "--quiet")
    folder = cloned(pipeline, tmp_path_factory.mktemp("readme") / "clone")
    shutil.copy(REPOSITORY / "Makefile", folder / "Makefile")
    write_documents(folder)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Makefile and documents")
    return folder


def shell(command: str, folder: Path) -> str:
    """A line of the README; `make` takes the environment as made already."""
    if command.startswith("make "):
        command = f"make --old-file=.venv/bin/.complete {command[5:]}"
    done = subprocess.run(
        command, shell=True, cwd=folder, env=this_python_first(environment()), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
def test_get_the_data(clone: Path, phantom_raw: Path, tmp_path: Path) -> None:
    shutil.copy(clone / "Makefile", tmp_path)
    shell(commands("get the data")[0].replace("DIR", str(phantom_raw)), tmp_path)
    assert {path.name for path in (tmp_path / "data/raw").iterdir()} >= {path.name for path in phantom_raw.iterdir()}


@pytest.mark.slow
def test_run_what_changed(clone: Path) -> None:
    said = shell(commands("run what changed")[1], clone)
    assert "up to date" in said and "Running stage" not in said


@pytest.mark.slow
def test_ask_the_shipped_model(clone: Path, tmp_path: Path) -> None:
    photo = picture(tmp_path)
    said = shell(commands("use the deployed model")[0].replace("photo.jpg", str(photo)), clone)
    assert "mel" in said


@pytest.mark.slow
def test_try_it_on_other_images(clone: Path, tmp_path: Path) -> None:
    from dermdistill.phantom import phantom

    phantom.write(tmp_path / "raw", lesions=20, seed=77, height=60, width=80, progress=False)
    for archive in phantom.PARTS:
        shutil.unpack_archive(tmp_path / "raw" / archive, tmp_path / "images")
    line, *options = commands("test it on other images")
    line = line.replace("DIR", str(tmp_path / "images")).replace("TABLE.csv", str(tmp_path / "raw" / phantom.TABLE))
    assert "melanoma" in shell(f"{line} {' '.join(options).replace('200', '4')}", clone)


@pytest.mark.slow
def test_see_curves_and_cases(clone: Path) -> None:
    shell(commands("see curves and cases")[0], clone)
    assert (clone / "dvc_plots/index.html").exists()
    assert (clone / commands("see curves and cases")[1]).stat().st_size > 100_000
    assert "mlflow ui" in shell(f"{commands('see curves and cases')[2]} --dry-run", clone)  # it would not end


@pytest.mark.slow
def test_recompute_the_numbers(clone: Path) -> None:
    assert "every number in the tables" in shell(commands("recompute the numbers")[0], clone)


@pytest.mark.slow
def test_try_another_alpha(clone: Path) -> None:
    first, *then = commands("try another α")
    assert "Ran experiment(s)" in shell(first, clone)
    assert "0.9" in shell(then[0] + " --csv", clone)
    shell(then[1], clone)


def picture(folder: Path) -> Path:
    import numpy as np
    from PIL import Image

    from dermdistill.phantom import phantom

    path = folder / "photo.jpg"
    Image.fromarray(phantom.draw(np.random.default_rng(0), "mel", 90, 120)).save(path)
    return path
