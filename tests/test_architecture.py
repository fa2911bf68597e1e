"""The house's plan, read from the source: arrows run one way, heavy libraries stay where they are needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPOSITORY, environment
from ruamel.yaml import YAML

PACKAGE = REPOSITORY / "src/dermdistill"
# Each room may import itself and the rooms named; modules directly in the package are rooms of their own.
LEAVES = {"blocks", "classes", "errors", "files", "params"}
MAY_IMPORT = {
    "classes": set(),
    "errors": set(),
    "files": {"errors"},
    "blocks": set(),
    "params": {"blocks", "errors"},
    "tracking": set(),
    "data": LEAVES,
    "evaluation": {"classes", "errors", "files"},
    "learning": LEAVES | {"data", "tracking"},
    "deployment": LEAVES | {"data", "learning"},
    "reporting": LEAVES | {"evaluation"},
    "presets": {"errors"},
    "demo": LEAVES | {"data", "presets"},
    "external": LEAVES | {"data", "deployment", "evaluation"},
    "ablation": LEAVES | {"deployment", "learning", "presets", "reporting"},
    "summary": LEAVES | {"ablation"},
    "cli": LEAVES | {"data", "deployment", "evaluation", "demo", "external", "summary"},
}
# Single modules that are held to more than their room.
NARROWER = {
    "deployment/runtime.py": LEAVES | {"data", "deployment"},
    "training/losses.py": LEAVES,
    "splitting/splits.py": LEAVES,
    "metrics/metrics.py": {"classes", "errors"},
    "reporting/style.py": LEAVES,
}
HEAVY = {
    "cv2": {"data"},
    "faiss": {"data"},
    "pandera": {"ingest/schema.py"},
    "torch": {"learning", "deployment/benchmark.py", "deployment/onnx_export.py", "deployment/formats.py", "stages"},
    "executorch": {"deployment/formats.py"},
    "torchvision": set(),
    "lightning_fabric": {"learning"},
    "timm": {"learning"},
    "safetensors": {"learning"},
    "mlflow": {"tracking"},
    "onnx": {"deployment", "tracking"},
    "onnxruntime": {"deployment"},
    "matplotlib": {"reporting"},
    "jinja2": {"reporting"},
    "skimage": {"baselines/features.py"},
    "captum": {"explain.py"},
}
SOURCES = sorted(PACKAGE.rglob("*.py"))
STAGES = sorted((REPOSITORY / "stages").glob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere in it, in full: ``from a.b import c`` gives a.b and a.b.c."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(name: str) -> str:
    """``dermdistill.ingest.pixels.read`` → data; ``dermdistill.core.classes`` → classes."""
    return name.split(".")[1]


def where(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else f"stages/{path.name}"


def rooms(path: Path) -> set[str]:
    found = {room(name) for name in imported(path) if name.startswith("dermdistill.")}
    return {name for name in found if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()}


def test_the_plan_names_every_room() -> None:
    assert {where(path).partition("/")[0].removesuffix(".py") for path in SOURCES} - {"__init__"} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", SOURCES, ids=where)
def test_arrows_run_one_way(path: Path) -> None:
    own = where(path).partition("/")[0].removesuffix(".py")
    allowed = NARROWER.get(where(path), MAY_IMPORT.get(own, set()) | {own})
    assert rooms(path) - allowed == set()


def test_the_plan_itself_has_no_circle() -> None:
    waiting = dict(MAY_IMPORT)
    while waiting:
        free = {name for name, others in waiting.items() if not others & waiting.keys()}
        assert free, f"a circle among {sorted(waiting)}"
        waiting = {name: others for name, others in waiting.items() if name not in free}


def test_nothing_in_the_package_imports_a_stage() -> None:
    assert [where(p) for p in SOURCES if any(name.split(".")[0] == "stages" for name in imported(p))] == []
    others = [where(p) for p in STAGES if any(name.startswith("stages.") for name in imported(p))]
    assert others == []


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_is_imported_only_where_it_is_needed(library: str) -> None:
    users = {where(p) for p in SOURCES + STAGES if any(name.split(".")[0] == library for name in imported(p))}
    allowed = HEAVY[library]
    rooms_of = {user: {user, user.partition("/")[0].removesuffix(".py")} for user in users}
    assert {user for user, names in rooms_of.items() if not names & allowed} == set()
    if allowed:
        assert users, f"nobody imports {library}; strike it from the plan"


def loaded(module: str) -> set[str]:
    """The top-level modules in memory once ``module`` is imported in a fresh process."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120, check=True
    )
    return set(ended.stdout.split())


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("dermdistill.metrics.metrics", {"torch", "timm", "mlflow", "onnxruntime", "matplotlib"}),
        ("dermdistill.reporting.report", {"torch", "timm", "mlflow", "onnxruntime"}),
        ("dermdistill.deployment.runtime", {"torch", "timm", "mlflow", "pandas", "sklearn", "scipy", "onnx"}),
        ("dermdistill.ingest.prepare", {"torch", "timm", "mlflow", "sklearn", "onnxruntime"}),
        ("dermdistill.cli", {"torch", "timm", "mlflow", "pandas", "onnxruntime", "numpy"}),
    ],
)
def test_light_modules_load_nothing_heavy(module: str, without: set[str]) -> None:
    found = loaded(module)
    assert "dermdistill" in found and found & without == set()


# --- nothing is unpickled ---------------------------------------------------------------------------------------

UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def calls(path: Path) -> list[tuple[str, dict[str, object], int]]:
    """``torch.load`` and the like: dotted name, constant keyword arguments, line."""
    return [
        (
            ast.unparse(node.func),
            {k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)},
            node.lineno,
        )
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


@pytest.mark.parametrize("path", SOURCES + STAGES, ids=where)
def test_nothing_is_unpickled(path: Path) -> None:
    assert {name.partition(".")[0] for name in imported(path)} & UNPICKLERS == set()
    for name, keywords, line in calls(path):
        if name in ("torch.load", "torch.hub.load", "torch.jit.load"):
            assert name == "torch.load" and keywords.get("weights_only") is True, f"{path}:{line}"
        if name in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle", False) is False, f"{path}:{line}"
        if name.endswith(("read_pickle", "to_pickle")) or name in ("eval", "exec", "yaml.load", "yaml.unsafe_load"):
            raise AssertionError(f"{path}:{line} calls {name}")


def test_the_rules_can_fail(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import torch\ndef f():\n    from dermdistill import reporting\n    torch.load('x')\n")
    assert {"torch", "dermdistill", "dermdistill.reporting"} <= imported(path)
    assert rooms(path) == {"reporting"}
    assert ("torch.load", {}, 4) in calls(path)


@pytest.mark.parametrize("path", [p for p in STAGES if p.name != "__init__.py"], ids=where)
def test_a_stage_is_short_and_ends_in_a_sentence_for_its_user(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 70
    assert text.startswith('"""') and 'if __name__ == "__main__":\n    run(main' in text


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", "dvc.lock"])
def test_dvc_reads_its_files_with_libyaml_and_as_its_own_reader_would(name: str) -> None:
    """In a quarter of the time: parsing is most of what a `dvc repro` with nothing to do consists of."""
    text, fast = (REPOSITORY / name).read_text(), YAML(typ="safe")
    assert fast.Parser is not YAML(typ="safe", pure=True).Parser
    assert fast.load(text) == YAML(typ="safe", pure=True).load(text)
