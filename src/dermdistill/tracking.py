"""Runs to browse in MLflow's UI; never read by any stage, so it cannot change a result.

DVC is the record, MLflow the viewer: ``runtime/mlflow.db`` may be deleted at any time. Off with
``DERMDISTILL_TRACKING=off``. MLflow is imported only when a training starts (2 to 4 s).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Log = Callable[[dict[str, float], int], None]


@contextmanager
def training(model_id: str, params: dict[str, Any]) -> Iterator[Log]:
    """One MLflow run for one training; yields ``log(metrics, epoch)``."""
    if os.environ.get("DERMDISTILL_TRACKING", "on") == "off":
        yield lambda metrics, epoch: None
        return
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

    def log(metrics: dict[str, float], epoch: int) -> None:
        mlflow.log_metrics(metrics, step=epoch)

    with mlflow.start_run(run_name=model_id, tags=tags):
        mlflow.log_params(_flat(params))
        yield log


def _flat(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in params.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
