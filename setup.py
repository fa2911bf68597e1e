"""Builds the package with the deployed model inside; everything else stands in pyproject.toml.

    pip install .                              # code MIT, weights CC BY-NC 4.0
    DERMDISTILL_WEIGHTS=none pip install .     # code alone, MIT; predict then needs --model

The model stays where the stage `ship` writes it. An editable installation finds it there, so nothing is copied.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import setuptools
from setuptools.command.build_py import build_py

WITHOUT = os.environ.get("DERMDISTILL_WEIGHTS") == "none"
DEPLOYED = {  # file of the repository → where it lies in dermdistill/deployed
    "models/deploy/student.int8.onnx": "student.int8.onnx",
    "models/deploy/student.int8.json": "student.int8.json",
    "models/deploy/LICENSE": "LICENSE",
    "data/image_hashes.csv": "data/image_hashes.csv",  # by which `evaluate` finds images that the model has seen
}


class BuildWithModel(build_py):
    """Copies the deployed model to ``dermdistill/deployed``."""

    def run(self) -> None:
        super().run()
        if WITHOUT or self.editable_mode:
            return
        for source, name in DEPLOYED.items():
            target = Path(self.build_lib) / "dermdistill/deployed" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not Path(source).is_file():
                raise SystemExit(f"{source} is missing; restore it from git, or build with DERMDISTILL_WEIGHTS=none")
            shutil.copyfile(source, target)


class LicensedAsBuilt(setuptools.Distribution):
    """Without weights, nothing in the package is CC BY-NC."""

    def parse_config_files(self, *arguments: Any, **named: Any) -> None:
        super().parse_config_files(*arguments, **named)  # reads pyproject.toml
        if WITHOUT:
            self.metadata.license_expression = "MIT"
            self.metadata.license_files = ["LICENSE"]


setuptools.setup(cmdclass={"build_py": BuildWithModel}, distclass=LicensedAsBuilt)
