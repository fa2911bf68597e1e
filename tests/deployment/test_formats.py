"""Every format answers as PyTorch does, and the stage that writes them refuses one that does not."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from deployment.test_onnx_export import HEIGHT, WIDTH, small_classifier, some_images
from helpers import missing
from scipy.special import softmax
from torch import nn

from dermdistill.deployment import formats
from dermdistill.errors import UserError
from dermdistill.metrics import parity

IMAGES = some_images(40)
TEMPERATURE, BIAS = 1.5, np.linspace(-1, 1, 7)


def model() -> nn.Module:
    return formats.calibrated(small_classifier(), TEMPERATURE, BIAS)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """By PyTorch from normalised pixels, and the formula."""
    with torch.inference_mode():
        logits = small_classifier()(torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255).numpy()
    return softmax(logits / TEMPERATURE + BIAS, axis=1)


def test_a_torch_export_archive_takes_any_number_of_images(tmp_path: Path, expected: np.ndarray) -> None:
    path = tmp_path / "new" / formats.FILES["torch_export"]
    formats.write("torch_export", model(), path, IMAGES[:1])
    run = formats.runner("torch_export", path)
    for batch in formats.batches("torch_export"):
        found = formats.batched(run, IMAGES, np.arange(40), batch)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_executorch_answers_as_pytorch_and_in_int8_nearly_so(tmp_path: Path, expected: np.ndarray) -> None:
    if find_spec("executorch") is None:
        missing("no executorch; pip install '.[phone]'")
    found = {}
    for name in ("executorch", "executorch_int8"):
        formats.write(name, model(), tmp_path / formats.FILES[name], IMAGES[:16])
        run = formats.runner(name, tmp_path / formats.FILES[name])
        found[name] = formats.batched(run, IMAGES, np.arange(40), 1)
    np.testing.assert_allclose(found["executorch"], expected, atol=1e-5)
    change = parity.compare(expected, found["executorch_int8"])
    assert change["agreement"] >= 0.9 and 1e-5 < change["mean_abs_dp"] < 0.03
    sizes = [(tmp_path / formats.FILES[name]).stat().st_size for name in found]
    assert sizes[1] < sizes[0]


def test_without_executorch_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "executorch.runtime", None)
    with pytest.raises(UserError, match=r"pip install '\.\[phone\]'"):
        formats.executorch(model(), HEIGHT, WIDTH, tmp_path / "m.pte")
    assert list(tmp_path.iterdir()) == []


def test_the_laboratory_runner_is_the_uncalibrated_model(tmp_path: Path) -> None:
    from dermdistill.params import Cut, Model
    from dermdistill.training import models

    spec = Model(
        arch="tf_efficientnet_lite0",
        weights="none",
        cut=Cut(stages=1, blocks=1, head=16),
        epochs=1,
        lr=1.0,
        size=None,
        dropout=0.0,
        drop_path=0.0,
        mixup=0.0,
        keep="best",
    )
    models.save(tmp_path, small_classifier(), models.build(spec)[1])
    with torch.inference_mode():
        logits = small_classifier()(torch.from_numpy(IMAGES[:4]).permute(0, 3, 1, 2).float() / 255).numpy()
    np.testing.assert_allclose(formats.run_eager(tmp_path)(IMAGES[:4]), softmax(logits, axis=1), atol=1e-5)
