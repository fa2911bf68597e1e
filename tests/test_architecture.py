"""The architecture, read from the source: arrows run one way, heavy libraries stay where they are needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPOSITORY, environment
from ruamel.yaml import YAML

PACKAGE = REPOSITORY / "src/dermdistill"
LAYERS = (  # a package or module imports none of a later layer; within a layer there is no circle
    {"errors"},
    {"core", "blocks", "presets", "tracking"},
    {"params"},
    {"baselines", "ingest", "metrics", "phantom", "splitting", "training"},
    {"deployment", "distillation", "evaluation", "explain"},
    {"predictor", "quantization", "reporting"},
    {"ablation", "api", "binary_truth", "demo", "external", "local_threshold", "summary", "weights"},
    {"batch", "serving"},
    {"cli"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Packages and modules that are held to more than their layer.
ONLY = {
    "core": {"errors"},
    "metrics": {"core", "errors"},
    "training": {"core", "params", "blocks", "errors", "tracking"},  # the loop knows no teacher
    "evaluation": {"core", "params", "blocks", "errors", "metrics"},
    "reporting": {"core", "params", "blocks", "errors", "metrics", "evaluation"},
    "deployment/runtime.py": {"core", "errors", "ingest"},
}
TORCH_FREE = ("core", "metrics", "evaluation", "reporting", "ingest", "splitting", "phantom", "baselines")
HEAVY = {
    "cv2": {"splitting"},
    "faiss": {"splitting"},
    "pandera": {"ingest/schema.py"},
    "torch": {
        "training", "distillation", "quantization", "explain", "deployment/benchmark.py", "deployment/onnx_export.py",
        "deployment/formats.py", "weights.py",
    },
    "executorch": {"deployment/formats.py"},
    "torchvision": set(),
    "lightning_fabric": {"training"},
    "timm": {"training", "weights.py"},
    "safetensors": {"training", "weights.py"},
    "mlflow": {"tracking", "serving"},
    "dvc": {"ablation"},
    "onnx": {"deployment", "quantization", "weights.py"},
    "onnxruntime": {"deployment", "quantization"},
    "matplotlib": {"reporting"},
    "jinja2": {"reporting"},
    "skimage": {"baselines/features.py"},
    "captum": {"explain"},
}  # fmt: skip
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


def where(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else f"stages/{path.name}"


def part(path: Path) -> str:
    """training/loop.py → training; params.py → params."""
    return where(path).partition("/")[0].removesuffix(".py")


def modules(path: Path) -> set[Path]:
    """The files of this package that a file imports."""
    names = (name.removeprefix("dermdistill.").replace(".", "/") for name in imported(path))
    return {file for name in names if (file := PACKAGE / f"{name}.py").is_file()}


def reached(path: Path) -> set[Path]:
    """A file and all that it imports, directly or not."""
    seen, todo = {path}, [path]
    while todo:
        fresh = modules(todo.pop()) - seen
        seen |= fresh
        todo += fresh
    return seen


def test_the_layers_name_every_part() -> None:
    assert {part(path) for path in SOURCES} - {"__init__"} == set(LEVEL)


@pytest.mark.parametrize("path", SOURCES, ids=where)
def test_no_arrow_upwards(path: Path) -> None:
    own, others = part(path), {part(file) for file in modules(path)}
    assert {other for other in others if LEVEL[other] > LEVEL.get(own, -1)} == set() or own == "__init__"
    allowed = ONLY.get(where(path), ONLY.get(own, set(LEVEL)) | {own})
    assert others - allowed == set()


def test_no_circle() -> None:
    for path in SOURCES:
        assert path not in {file for other in modules(path) for file in reached(other)}, f"{where(path)} imports itself"


@pytest.mark.parametrize("name", TORCH_FREE)
def test_what_needs_no_torch_reaches_none(name: str) -> None:
    for path in (PACKAGE / name).rglob("*.py"):
        users = [where(file) for file in reached(path) if "torch" in {i.partition(".")[0] for i in imported(file)}]
        assert users == [], where(path)


def test_nothing_in_the_package_imports_a_stage() -> None:
    assert [where(p) for p in SOURCES if any(name.split(".")[0] == "stages" for name in imported(p))] == []
    others = [where(p) for p in STAGES if any(name.startswith("stages.") for name in imported(p))]
    assert others == []


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_is_imported_only_where_it_is_needed(library: str) -> None:
    users = [path for path in SOURCES + STAGES if any(name.split(".")[0] == library for name in imported(path))]
    allowed = HEAVY[library]
    assert [where(path) for path in users if not {where(path), part(path)} & allowed] == []
    assert {name for name in allowed if not any(name in (where(path), part(path)) for path in users)} == set()


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
        ("dermdistill.batch", {"torch", "timm", "mlflow", "pandas", "sklearn", "scipy", "onnx", "pydantic", "yaml"}),
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
    path.write_text("import torch\ndef f():\n    from dermdistill import cli\n    torch.load('x')\n")
    assert {"torch", "dermdistill", "dermdistill.cli"} <= imported(path)
    assert modules(path) == {PACKAGE / "cli.py"} and PACKAGE / "core/files.py" in reached(PACKAGE / "cli.py")
    assert ("torch.load", {}, 4) in calls(path)


@pytest.mark.parametrize("path", [p for p in STAGES if p.name != "__init__.py"], ids=where)
def test_a_stage_is_short_and_ends_in_a_sentence_for_its_user(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert text.startswith('"""') and 'if __name__ == "__main__":\n    run(main' in text


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", "dvc.lock"])
def test_dvc_reads_its_files_with_libyaml_and_as_its_own_reader_would(name: str) -> None:
    """In a quarter of the time: parsing is most of what a `dvc repro` with nothing to do consists of."""
    text, fast = (REPOSITORY / name).read_text(), YAML(typ="safe")
    assert fast.Parser is not YAML(typ="safe", pure=True).Parser
    assert fast.load(text) == YAML(typ="safe", pure=True).load(text)


# --- the picture in docs/architecture.md ------------------------------------------------------------------------


def arrows() -> set[tuple[str, str]]:
    """(importer, imported) between parts of the package; what everything may import is left out."""
    pairs = {(part(path), part(other)) for path in SOURCES for other in modules(path)}
    return {(a, b) for a, b in pairs if a != b and b not in ("core", "params", "blocks", "errors", "tracking")}


def test_the_picture_shows_the_arrows_of_the_code() -> None:
    text = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    picture = text.split("<!-- imports -->")[1].split("<!-- /imports -->")[0]
    drawn = {tuple(line.split(" --> ")) for line in map(str.strip, picture.splitlines()) if " --> " in line}
    assert drawn == arrows(), "\n".join(f"  {a} --> {b}" for a, b in sorted(arrows()))
