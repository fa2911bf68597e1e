"""Runs to browse in MLflow's UI; never read by any stage, so it cannot change a result.

DVC is the record, MLflow the viewer: ``runtime/mlflow.db`` may be deleted at any time, and a fault of
MLflow's (a locked or older database) costs a warning, never a training. Off with
``DERMDISTILL_TRACKING=off``. MLflow is imported only when a training starts (2 to 4 s).
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Log = Callable[[dict[str, float], int], None]


@contextmanager
def training(model_id: str, params: dict[str, Any]) -> Iterator[Log]:
    """One MLflow run for one training; yields ``log(metrics, epoch)``."""
    if os.environ.get("DERMDISTILL_TRACKING", "on") == "off" or not _attempt(_start, model_id, params):
        yield lambda metrics, epoch: None
        return
    import mlflow

    status = "FAILED"
    try:
        yield lambda metrics, epoch: _log(metrics, epoch)
        status = "FINISHED"
    finally:
        _attempt(mlflow.end_run, status)


def _start(model_id: str, params: dict[str, Any]) -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    folder = Path("runtime").resolve()
    folder.mkdir(exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    if mlflow.get_experiment_by_name("dermdistill") is None:
        mlflow.create_experiment("dermdistill", artifact_location=(folder / "mlruns").as_uri())
    mlflow.set_experiment("dermdistill")
    tags = {
        name: os.environ[name] for name in ("DVC_STAGE", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV") if name in os.environ
    }
    mlflow.start_run(run_name=model_id, tags=tags)
    mlflow.log_params(_flat(params))


def _log(metrics: dict[str, float], epoch: int) -> None:
    import mlflow

    _attempt(mlflow.log_metrics, metrics, step=epoch)


def _attempt(call: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    try:
        call(*arguments, **named)
    except Exception as error:  # whatever it is, a viewer must not stop a training
        warnings.warn(f"MLflow does not track this ({error}); the training goes on", stacklevel=2)
        return False
    return True


def _flat(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in params.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
