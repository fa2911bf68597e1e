"""The whole pipeline on the embedded data set, in a folder of its own: ``make demo``.

The folder gets a copy of the source, the parameters changed by ``presets/demo.yaml``, a phantom data
set and its own DVC state, so that nothing of the repository around it is touched. Run again, it
rebuilds only what changed in the source since.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from dermdistill.data import phantom
from dermdistill.errors import UserError, run
from dermdistill.files import write_text

SOURCE = ("src", "stages", "dvc.yaml", ".dvcignore")


def main(folder: str) -> None:
    target = Path(folder).resolve()
    copy_source(Path.cwd(), target)
    if not (target / "data/raw/HAM10000_metadata.csv").exists():
        phantom.write(target / "data/raw")
    if not (target / ".dvc").exists():
        call(target, "dvc", "init", "--quiet", "--no-scm")
        call(target, "dvc", "config", "core.analytics", "false")
    call(target, "dvc", "repro")
    call(target, "dvc", "metrics", "show", "metrics/summary.json")
    print(f"\nreport: {target / 'reports/report.html'}")


def copy_source(source: Path, target: Path) -> None:
    """The pipeline's files, and the parameters with the preset applied."""
    target.mkdir(parents=True, exist_ok=True)
    for name in SOURCE:
        if (source / name).is_dir():
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copyfile(source / name, target / name)
    params, preset = (yaml.safe_load((source / name).read_text()) for name in ("params.yaml", "presets/demo.yaml"))
    write_text(target / "params.yaml", yaml.safe_dump(merged(params, preset), sort_keys=False))


def merged(base: Any, changes: Any) -> Any:
    """``base`` with the values of ``changes`` in its place, block by block."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {name: merged(base.get(name), value) for name, value in changes.items()}


def call(folder: Path, *command: str) -> None:
    if subprocess.run([sys.executable, "-m", *command], cwd=folder, check=False).returncode:
        raise UserError(f"`{' '.join(command)}` failed in {folder}; the lines above say why")


if __name__ == "__main__":
    run(main, *sys.argv[1:])
