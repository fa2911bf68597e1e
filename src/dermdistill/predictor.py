"""Any trained network as one function: by PyTorch or, for INT8, by the runtime that is deployed."""

from collections.abc import Callable

import numpy as np

from dermdistill.core.model_id import ModelId
from dermdistill.deployment.runtime import Detector
from dermdistill.distillation import ensemble
from dermdistill.training import loop


def load(model_id: ModelId, flips: bool = False) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Images (N, H, W, 3) uint8, rows (n,) → probabilities (n, 7); ``flips`` as in :func:`ensemble.load_model`."""
    if model_id.kind == "int8":
        return Detector(model_id.folder / "model.onnx").predict
    loop.deterministic(0)
    model = ensemble.load_model(model_id, flips)
    return lambda images, rows: loop.predict(model, images, rows).double().softmax(1).numpy()
