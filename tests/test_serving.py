"""The registered model: the command, Python, MLflow and HTTP give the same answers, refusals too."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import REPOSITORY, environment, this_python_first

from dermdistill import Detector, tracking
from dermdistill.core.files import read_json

DEPLOYED = REPOSITORY / "models/deploy/student.int8.onnx"


@pytest.fixture
def champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder's MLflow database with the deployed model as champion; the database's URI."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "params.yaml").write_text("{}")
    before = mlflow.get_tracking_uri()
    tracking._shipped(DEPLOYED, read_json(DEPLOYED.with_suffix(".json")))
    mlflow.set_tracking_uri(before)
    return f"sqlite:///{tmp_path}/runtime/mlflow.db"


@pytest.fixture
def files() -> list[bytes]:
    folder = DEPLOYED.parent
    return [(folder / "example.jpg").read_bytes(), b"no image", (folder / "example.png").read_bytes()]


def same(answers: list[dict[str, Any]], files: list[bytes]) -> None:
    """As the API answers; probabilities to 1e-6."""
    for found, expected in zip(answers, Detector.load().predict(files), strict=True):
        wanted, got = expected.to_dict(), dict(found)
        assert got.pop("probabilities") == pytest.approx(wanted.pop("probabilities"), abs=1e-6)
        assert got.pop("melanoma") == pytest.approx(wanted.pop("melanoma"), abs=1e-6)
        assert got == wanted


def test_mlflow_answers_as_python_does(champion: str, files: list[bytes]) -> None:
    import mlflow

    mlflow.set_tracking_uri(champion)
    model = mlflow.pyfunc.load_model("models:/dermdistill@champion")
    answers = model.predict(pd.DataFrame({"image": files}))
    same(answers, files)
    assert answers[1]["outcome"] == answers[1]["decision"] == "cannot judge"
    folder = Path(mlflow.artifacts.download_artifacts("models:/dermdistill@champion"))
    assert not list(folder.rglob("*.pkl")) and len(list(folder.rglob("*.onnx"))) == 1


@pytest.mark.slow
def test_http_answers_as_command_and_python_do(champion: str, files: list[bytes], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--port", str(port)]
    settings = this_python_first(environment()) | {"MLFLOW_TRACKING_URI": champion}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--model-uri", "models:/dermdistill@champion"],
            env=settings, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        rows = [[base64.b64encode(content).decode()] for content in files]
        body = json.dumps({"dataframe_split": {"columns": ["image"], "data": rows}}).encode()
        answers = post(f"http://127.0.0.1:{port}/invocations", body, server)["predictions"]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    same(answers, files)
    (tmp_path / "photo.jpg").write_bytes(files[0])
    command = [sys.executable, "-m", "dermdistill.cli", "predict", "--json", str(tmp_path / "photo.jpg")]
    said = json.loads(subprocess.run(command, env=environment(), capture_output=True, check=True).stdout)
    assert answers[0] | {"image": said["image"]} == said


def post(url: str, body: bytes, server: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """What the server answers, once it is up."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    for _ in range(120):
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None
        except OSError:
            time.sleep(1)
    raise AssertionError("the server did not come up")
