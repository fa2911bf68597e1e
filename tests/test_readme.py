"""README and guides keep their word: every line of "How to" runs, links lead somewhere, the picture is DVC's."""

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import networkx as nx
import pytest
from dvc.repo import Repo
from helpers import REPOSITORY, cloned, environment, git, this_python_first, write_documents

README, GUIDE = ((REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "docs/how-to.md"))
DOCUMENTS = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "data/README.md")]
DOCUMENTS += sorted((REPOSITORY / "docs").glob("*.md"))
ROWS = dict(re.findall(r"^\| ([^|`]+) \| (.+) \|$", GUIDE, re.M))
del ROWS["to"]
ELSEWHERE = {  # row → the test that runs it; most take minutes and are not run twice
    "use other data or your own split": "test_splits.py::test_a_frozen_split_is_kept_and_its_duplicates_are_named",
    "distil in another way": "test_losses.py::test_every_method_trains_a_student_of_its_own",
    "learn from several teachers": "test_experiments.py::test_students_depend_on_their_own_teachers_alone",
    "compare all ways on val": "test_ablation.py::test_three_runs_through_the_queue_and_nothing_twice",
    "see what is complete or missing": "test_ablation.py::test_the_summary_is_quick_and_needs_no_heavy_library",
    "train on several GPUs or machines": "test_distributed.py::test_two_processes_end_with_the_weights_of_one",
    "start from weights of your own, fine-tune": "test_models.py::test_a_file_of_timms_own_weights_is_the_start",
    "set a threshold for your own clinic": "test_local_threshold.py::test_predict_takes_a_threshold",
    "evaluate on a further source too": "test_pipeline.py::test_one_command_makes_everything",
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


def headings(text: str) -> set[str]:
    """The anchors of a document, as its host makes them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for name, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
        path = document.parent / name if name else document
        assert path.exists(), name
        assert not anchor or anchor in headings(path.read_text(encoding="utf-8")), f"{name}#{anchor}"
    assert all(len(description) > 20 for description in re.findall(r"!\[([^]]*)\]", text))


def test_the_readme_is_read_in_a_minute() -> None:
    assert len(README.split()) <= 900
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", README, re.S)
    assert len(blocks) >= 3 and max(len(line) for block in blocks for line in block.splitlines()) <= 80


def test_the_readme_shows_what_predict_says() -> None:
    """Words to the letter; another processor may round the last digit of a percentage elsewhere."""
    shown = re.search(r"^\$ (dermdistill predict .*)\n((?:.+\n)+)```", README, re.M)
    assert shown is not None
    said, number = shell(shown[1], REPOSITORY), re.compile(r"\d+\.\d%")
    assert number.sub("%", said).split() == number.sub("%", shown[2]).split()
    values = [[float(one[:-1]) for one in number.findall(text)] for text in (said, shown[2])]
    assert values[0] == pytest.approx(values[1], abs=0.5)


def test_the_picture_of_the_pipeline_is_dvcs() -> None:
    """Each stage is in one box; arrows are the shortest that tell which box needs which."""
    picture = README.split("```mermaid")[1].split("```")[0]
    boxes = dict(re.findall(r"^ *(\w+)\[\"<b>\w+</b><br>(.+)\"\]$", picture, re.M))
    box_of = {stage: box for box, stages in boxes.items() for stage in re.split(r" |<br>", stages)}
    chains = [line.split(" --> ") for line in map(str.strip, picture.splitlines()) if "-->" in line]
    drawn = {(a, b) for chain in chains for a, b in pairwise(chain)}
    graph: nx.DiGraph[str] = nx.DiGraph()
    with Repo(REPOSITORY) as repo:
        edges = [(b.name.split("@")[0], a.name.split("@")[0]) for a, b in repo.index.graph.edges]
        names = {stage.name.split("@")[0] for stage in repo.index.stages}
    assert set(box_of) == names
    graph.add_edges_from((box_of[a], box_of[b]) for a, b in edges if box_of[a] != box_of[b])
    assert drawn == set(nx.transitive_reduction(graph).edges)


def test_every_target_of_make_is_explained_and_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.M)):
        assert re.search(rf"^{target}:.*## ", makefile, re.M), target


@pytest.fixture(scope="module")
def clone(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the phantom's repository with everything pulled, and what `make` and `verify` need beside it."""
    folder = cloned(pipeline, tmp_path_factory.mktemp("readme") / "clone")
    shutil.copy(REPOSITORY / "Makefile", folder / "Makefile")
    write_documents(folder)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Makefile and documents")
    return folder


def shell(command: str, folder: Path) -> str:
    """A line of a guide; `make` takes the environment as made already."""
    if command.startswith("make "):
        command = f"make --old-file=.venv/bin/.complete {command[5:]}"
    done = subprocess.run(
        command, shell=True, cwd=folder, env=this_python_first(environment()), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_get_the_data(clone: Path, phantom_raw: Path, tmp_path: Path) -> None:
    shutil.copy(clone / "Makefile", tmp_path)
    shell(commands("get the data")[0].replace("DIR", str(phantom_raw)), tmp_path)
    assert {path.name for path in (tmp_path / "data/raw").iterdir()} >= {path.name for path in phantom_raw.iterdir()}


def test_run_what_changed(clone: Path) -> None:
    said = shell(commands("run what changed")[1], clone)
    assert "up to date" in said and "Running stage" not in said


def test_ask_the_shipped_model(clone: Path, tmp_path: Path) -> None:
    photo = picture(tmp_path)
    said = shell(commands("use the deployed model")[0].replace("photo.jpg", str(photo)), clone)
    assert "mel" in said


def test_try_it_on_other_images(clone: Path, tmp_path: Path) -> None:
    from dermdistill.phantom import phantom

    phantom.write(tmp_path / "raw", lesions=20, seed=77, height=60, width=80, progress=False)
    for archive in phantom.PARTS:
        shutil.unpack_archive(tmp_path / "raw" / archive, tmp_path / "images")
    for path in list((tmp_path / "images").rglob("*.jpg")):  # somebody else's numbers: ids of train would be refused
        path.rename(path.with_name(path.name.replace("ISIC_", "OTHER_")))
    table = tmp_path / "raw" / phantom.TABLE
    table.write_text(table.read_text().replace("ISIC_", "OTHER_").replace("HAM_", "OTHER_"))
    line, *options = commands("test it on other images")
    line = line.replace("DIR", str(tmp_path / "images")).replace("TABLE.csv", str(tmp_path / "raw" / phantom.TABLE))
    assert "melanoma" in shell(f"{line} {' '.join(options).replace('200', '4')}", clone)


def test_see_curves_and_cases(clone: Path) -> None:
    shell(commands("see curves and cases")[0], clone)
    assert (clone / "dvc_plots/index.html").exists()
    assert (clone / commands("see curves and cases")[1]).stat().st_size > 100_000
    assert "mlflow ui" in shell(f"{commands('see curves and cases')[2]} --dry-run", clone)  # it would not end


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
