"""A named set of parameters as a DVC experiment: ``make exp PRESET=demo ARGS="-S kd.alpha=0.9"``.

A preset (``presets/NAME.yaml``) holds only what differs from ``params.yaml``; each value becomes one
``-S`` flag of ``dvc exp run``, before the flags typed by hand, which therefore win. The experiment
runs in a copy of the repository (``--temp``), because DVC deletes from the working copy whatever
belongs to models the parameters no longer name. Deliberately absent: composition of several presets.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dermdistill.errors import UserError, run

FOLDER = Path("presets")


def main(name: str, *arguments: str) -> None:
    where = [] if "--queue" in arguments else ["--temp"]
    command = [sys.executable, "-m", "dvc", "exp", "run", *where, *flags(read(name)), *arguments]
    raise SystemExit(subprocess.run(command, check=False).returncode)


def read(name: str) -> dict[str, Any]:
    """The preset's content.

    Raises:
        UserError: there is none of that name, or it is not a mapping.
    """
    path = FOLDER / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        names = ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml"))) or "none; run from the top folder"
        raise UserError(f"there is no preset {name!r} in {FOLDER}/ (there are: {names})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must map names to values, as params.yaml does")
    return content


def flags(content: dict[str, Any]) -> list[str]:
    """``-S name.of.value=value`` for each value, in the notation DVC expects (Hydra's, close to JSON)."""
    return [flag for name, value in _leaves(content) for flag in ("-S", f"{name}={json.dumps(value)}")]


def _leaves(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def merged(base: Any, changes: Any) -> Any:
    """``base`` with the values of ``changes`` in its place, block by block."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {name: merged(base.get(name), value) for name, value in changes.items()}


if __name__ == "__main__":
    run(main, *sys.argv[1:])
