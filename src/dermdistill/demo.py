"""The whole pipeline on the embedded data set, in a folder of its own: ``make demo``.

The folder gets a copy of the source, the parameters changed by ``presets/demo.yaml``, a phantom data
set and its own DVC state, so that nothing of the repository around it is touched. Run again, it
rebuilds only what changed in the source since.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from dermdistill.core.files import write_text
from dermdistill.errors import UserError, run
from dermdistill.phantom import phantom
from dermdistill.presets import merged

MARK = ".demo"  # this folder is ours to overwrite
SOURCE = ("src", "stages", "dvc.yaml", ".dvcignore", "metrics/other/.gitkeep")


def main(folder: str) -> None:
    source, target = Path.cwd(), Path(folder).resolve()
    if not all((source / name).exists() for name in SOURCE):
        raise UserError(f"{source} is not the top folder of the repository; run `make demo` there")
    if target.exists() and any(target.iterdir()) and not (target / MARK).exists():
        raise UserError(f"{target} is not empty and no earlier demo; name another folder")
    copy_source(source, target)
    (target / MARK).touch()
    if not all((target / "data/raw" / name).exists() for name in (*phantom.PARTS, phantom.TABLE)):
        phantom.write(target / "data/raw")
    if not (target / ".dvc").exists():
        call(target, "dvc", "init", "--quiet", "--no-scm")
        call(target, "dvc", "config", "core.analytics", "false")
    call(target, "dvc", "repro")
    print((target / "docs/tables/results.md").read_text(encoding="utf-8"))
    print(f"report: {target / 'reports/report.html'}")


def copy_source(source: Path, target: Path) -> None:
    """The pipeline's files, and the parameters with the preset applied."""
    target.mkdir(parents=True, exist_ok=True)
    for name in SOURCE:
        if (source / name).is_dir():
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
    params, preset = (yaml.safe_load((source / name).read_text()) for name in ("params.yaml", "presets/demo.yaml"))
    write_text(target / "params.yaml", yaml.safe_dump(merged(params, preset), sort_keys=False))


def call(folder: Path, *command: str) -> None:
    """Run a Python program in ``folder``; the stages it starts find the same Python first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=os.environ | {"PATH": path}, check=False
    ).returncode:
        raise UserError(f"`{' '.join(command)}` failed in {folder}; the lines above say why")


if __name__ == "__main__":
    run(main, *sys.argv[1:])
