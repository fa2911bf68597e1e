"""Runs to browse in MLflow's UI; never read by any stage, so it cannot change a result.

One parent run per pipeline run (a DVC experiment, or a revision with its parameters), and below it
one run per training, quantization, evaluation and shipped model. DVC is the record, MLflow the
viewer: ``runtime/mlflow.db`` may be deleted at any time, and a fault of MLflow's (a locked or older
database) costs a warning, never a result. Off with ``DERMDISTILL_TRACKING=off``. MLflow is imported
only by stages that log (2 to 4 s). Experiments in copies of the repository log to the one they
were started from: DVC tells them where it is.
"""

import hashlib
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

Log = Callable[[dict[str, float], int], None]
PROJECT = "dermdistill"
PIPELINE = "dermdistill.pipeline"  # the tag by which the stages of one pipeline run find their parent
EXPERIMENT = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")  # set by DVC in experiments
ALIAS = "champion"


def on() -> bool:
    first = os.environ.get("RANK", "0") == "0"  # of the processes of a training on several devices
    return first and os.environ.get("DERMDISTILL_TRACKING", "on") != "off"


@contextmanager
def training(model_id: str, params: dict[str, Any]) -> Iterator[Log]:
    """One MLflow run for one training; yields ``log(metrics, epoch)``."""
    if not on() or not _attempt(_start, f"train {model_id}", params):
        yield lambda metrics, epoch: None
        return
    import mlflow

    def log(metrics: dict[str, float], epoch: int) -> None:
        _attempt(mlflow.log_metrics, metrics, step=epoch)

    status = "FAILED"
    try:
        yield log
        status = "FINISHED"
    finally:
        _attempt(mlflow.end_run, status)


def record(name: str, params: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """One finished run: what went in, every number of ``metrics`` (nested names are joined by a dot)."""
    if on():
        _attempt(_record, name, params, metrics)


def pipeline(
    params: Mapping[str, Any], metrics: Mapping[str, Any], evaluations: Mapping[str, Any], figures: Sequence[Path]
) -> None:
    """The whole pipeline run, once its last stage is done.

    Args:
        metrics: headline figures, put on the parent run, so that experiments can be compared in one table.
        evaluations: all figures of each model, by model id; a run of their own each.
    """
    if on():
        _attempt(_pipeline, params, metrics, evaluations, figures)


def shipped(path: Path, metadata: Mapping[str, Any]) -> None:
    """Register the deployed ONNX file, to be served by ``serving.py``; outside of experiments it becomes ``champion``.

    Args:
        metadata: what the file says of itself; its texts become tags.
    """
    if on():
        _attempt(_shipped, path, metadata)


# MLflow itself ------------------------------------------------------------------------------------


def _start(name: str, params: Mapping[str, Any]) -> None:
    """Begin a run below the parent; an earlier try of the same that never ended is closed as killed."""
    mlflow = _connect()
    parent = _parent()
    client = mlflow.MlflowClient()
    for run in _children(parent, name):
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, "KILLED")
    mlflow.start_run(run_name=name, parent_run_id=parent, tags=_tags("DVC_STAGE", *EXPERIMENT))
    mlflow.log_params(_flat(params))


def _record(name: str, params: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    mlflow = _connect()
    for run in _children(_parent(), name):  # the same parameters again: the newest replaces it
        mlflow.MlflowClient().delete_run(run.info.run_id)
    _start(name, params)
    try:
        mlflow.log_metrics(_numbers(metrics))
    finally:
        mlflow.end_run()


def _pipeline(
    params: Mapping[str, Any], metrics: Mapping[str, Any], evaluations: Mapping[str, Any], figures: Sequence[Path]
) -> None:
    mlflow = _connect()
    for model_id, numbers in evaluations.items():
        _record(f"evaluate {model_id}", {}, numbers)
    with mlflow.start_run(run_id=_parent()):  # leaves the parent finished
        mlflow.log_params(_flat(params))
        mlflow.log_metrics(_numbers(metrics))
        for path in figures:
            mlflow.log_artifact(str(path), "figures")


def _shipped(path: Path, metadata: Mapping[str, Any]) -> None:
    mlflow = _connect()
    client, digest = mlflow.MlflowClient(), metadata["sha256"]
    known = client.search_registered_models(f"name = '{PROJECT}'")
    found = client.search_model_versions(f"name = '{PROJECT}' and tags.sha256 = '{digest}'") if known else []
    version = found[0].version if found else _register(mlflow, path, metadata)
    if "DVC_EXP_NAME" not in os.environ:
        client.set_registered_model_alias(PROJECT, ALIAS, version)


def _register(mlflow: Any, path: Path, metadata: Mapping[str, Any]) -> str:
    from mlflow.types import ColSpec, DataType, Schema

    texts = {name: value for name, value in metadata.items() if isinstance(value, str)}
    _start(f"ship {metadata['id']}", {"bytes": metadata["bytes"]})
    try:
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("serving.py")),  # run when loaded: nothing is pickled
            artifacts={"model": str(path)},
            signature=mlflow.models.ModelSignature(Schema([ColSpec(DataType.binary, "image")])),
            pip_requirements=[PROJECT],
            metadata=texts,
        )
    finally:
        mlflow.end_run()
    tags = {"sha256": metadata["sha256"], "id": metadata["id"]}
    return str(mlflow.register_model(logged.model_uri, PROJECT, tags=tags).version)


def _connect() -> Any:
    """MLflow, looking at this project's database, which is made by one process at a time."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    folder = _folder()
    with _alone(folder):
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        if mlflow.get_experiment_by_name(PROJECT) is None:
            mlflow.create_experiment(PROJECT, artifact_location=(folder / "mlruns").as_uri())
        mlflow.set_experiment(PROJECT)
    return mlflow


def _folder() -> Path:
    folder = Path(os.environ.get("DVC_ROOT", ".")).resolve() / "runtime"
    folder.mkdir(exist_ok=True)
    return folder


def _alone(folder: Path) -> FileLock:
    """Held while the database or the parent run is made, by one process at a time."""
    (folder / "locks").mkdir(exist_ok=True)
    return FileLock(folder / "locks/mlflow")


def _parent() -> str:
    """Id of the parent run, which is made if this is the first stage of its pipeline run to log."""
    import mlflow

    with _alone(_folder()):
        client, name = mlflow.MlflowClient(), _pipeline_name()
        experiment = mlflow.set_experiment(PROJECT).experiment_id
        found = client.search_runs([experiment], f"tags.`{PIPELINE}` = '{name}'", max_results=1)
        run = (
            found[0]
            if found
            else client.create_run(experiment, run_name=name, tags={PIPELINE: name} | _tags(*EXPERIMENT))
        )
    return str(run.info.run_id)


def _pipeline_name() -> str:
    """The DVC experiment's name; else the revision, followed by a hash of the parameters as they are."""
    if name := os.environ.get("DVC_EXP_NAME"):
        return name
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    revision = done.stdout.strip() if done.returncode == 0 else "repro"
    return f"{revision}-{hashlib.sha256(Path('params.yaml').read_bytes()).hexdigest()[:6]}"


def _children(parent: str, name: str) -> list[Any]:
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_run(parent).info.experiment_id
    wanted = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.run_name = '{name}'"
    return list(client.search_runs([experiment], wanted))


def _tags(*names: str) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _attempt(call: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    try:
        call(*arguments, **named)
    except Exception as error:  # whatever it is, a viewer must not stop a training
        warnings.warn(f"MLflow does not track this ({error}); the work itself goes on", stacklevel=2)
        return False
    return True


def _numbers(content: Any, prefix: str = "") -> dict[str, float]:
    """Every number in nested dictionaries, by dotted name; lists, texts and nothing are left to the files."""
    if isinstance(content, Mapping):
        parts = [_numbers(value, f"{prefix}.{name}" if prefix else str(name)) for name, value in content.items()]
        return {name: value for part in parts for name, value in part.items()}
    return {prefix: float(content)} if isinstance(content, int | float) else {}


def _flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in params.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
