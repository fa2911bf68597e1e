"""Fake quantization rounds as the INT8 file does, gradients pass, and a student trained with it bears the rounding."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from deployment.test_onnx_export import HEIGHT, WIDTH, small_classifier, some_images
from helpers import REPOSITORY, change_params

from dermdistill import params
from dermdistill.core.files import read_json
from dermdistill.deployment import onnx_export
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import UserError
from dermdistill.quantization import fake_quant, qat
from dermdistill.quantization.int8 import Quantizer, overflowing
from dermdistill.training import models
from dermdistill.training.augment import to_float
from stages import quantize as quantize_stage

ID = "int8_smaller_s0"
IMAGES = some_images(60)
SAMPLE = to_float(IMAGES[:4])


def settings(**changes: Any) -> params.Params:
    """The committed parameters with small batches and these values of ``quantize.qat``."""
    loaded = params.load(REPOSITORY / "params.yaml")
    block = loaded.quantize.qat.model_copy(update={"batch_size": 8, **changes})
    return loaded.model_copy(update={"quantize": loaded.quantize.model_copy(update={"qat": block})})


def norms(model: torch.nn.Module) -> int:
    return sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("arch", ["mobilenetv3_small_050", "resnet10t", "tf_efficientnet_lite0"])
def test_folding_leaves_the_answers_as_they_are(arch: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(arch, num_classes=7)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()  # type: ignore[union-attr, operator]
    model = models.Classifier(network, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).eval()
    before = copy.deepcopy(model.state_dict())
    folded = fake_quant.fold(model, SAMPLE)
    assert norms(model) > 10 and norms(folded) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(folded(SAMPLE), model(SAMPLE), rtol=1e-3, atol=1e-4)


def test_a_network_that_cannot_be_folded_is_refused() -> None:
    class Forked(torch.nn.Module):
        """Batch norm and a sum read the same convolution: the sum would see the folded one."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 7, 1), torch.nn.BatchNorm2d(7)
            torch.nn.init.constant_(self.norm.weight, 3.0)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            made = self.conv(images)
            return (self.norm(made) + made).mean((2, 3))

    with pytest.raises(UserError, match="cannot be folded"):
        fake_quant.fold(models.Classifier(Forked(), (0.5,) * 3, (0.2,) * 3).eval(), SAMPLE)


def test_gradients_pass_straight_through() -> None:
    weight = torch.linspace(-1, 1, 48).reshape(4, 3, 2, 2).requires_grad_()
    made = fake_quant.FakeQuantWeight()(weight)
    made.sum().backward()
    assert weight.grad is not None and torch.equal(weight.grad, torch.ones_like(weight)) and (made != weight).any()
    values = torch.linspace(-1, 3, 1001).requires_grad_()
    first = fake_quant.FakeQuantActivation(values)
    steps = first(values)
    steps.sum().backward()
    assert len(steps.unique()) == 256 and torch.equal(values.grad, torch.ones(1001))  # type: ignore[arg-type]
    outside = torch.tensor([-9.0, 0.0, 1.0, 99.0], requires_grad=True)
    cut = first(outside)
    cut.sum().backward()
    assert outside.grad is not None and outside.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert cut[1] == 0 and cut[3] < 4  # zero stays zero, as padding needs it


def int8_weights(path: Path) -> dict[str, np.ndarray]:
    """Weights of convolutions by name, as the file's INT8 numbers and scales give them."""
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    names = [n.removesuffix("_quantized") for n, v in tensors.items() if v.dtype == np.int8 and v.ndim == 4]
    shape = (-1, 1, 1, 1)
    return {n: tensors[f"{n}_quantized"] * tensors[f"{n}_scale"].reshape(shape) for n in names}


def test_weights_of_the_int8_file_are_those_that_were_trained(tmp_path: Path) -> None:
    learner = qat.fine_tune(small_classifier(), IMAGES, np.arange(40), settings(lr=1e-3), 1)
    onnx_export.to_onnx(learner, HEIGHT, WIDTH, tmp_path / "fp32.onnx")
    (tmp_path / "scratch").mkdir()
    Quantizer(tmp_path / "fp32.onnx", IMAGES[:40], tmp_path / "scratch").static(tmp_path / "int8.onnx", "minmax")
    found, trained = int8_weights(tmp_path / "int8.onnx"), learner.state_dict()
    assert len(found) == sum(isinstance(module, torch.nn.Conv2d) for module in learner.modules()) > 5
    for name, weight in found.items():
        np.testing.assert_allclose(weight, trained[name].numpy(), rtol=1e-5, atol=1e-7)
    own, before = int8_weights(tmp_path / "int8.onnx"), small_classifier().state_dict()
    assert any(not np.allclose(own[name], before[name].numpy(), atol=1e-3) for name in own)  # it has learnt
    biases = onnx.load(tmp_path / "scratch/corrected.onnx").graph.initializer
    kept = {t.name: onnx.numpy_helper.to_array(t) for t in biases if t.name.endswith(".bias")}
    for name in set(kept) & set(trained):
        np.testing.assert_allclose(kept[name], trained[name].numpy(), atol=1e-4)  # nothing to correct


def test_rounding_ends_with_its_block() -> None:
    model = fake_quant.fold(small_classifier(), SAMPLE)
    exact, names = copy.deepcopy(model), set(model.state_dict())
    with fake_quant.fake_quantized(model, SAMPLE), torch.no_grad():
        inside = model(SAMPLE)
    assert set(model.state_dict()) == names
    with torch.no_grad():
        after, before = model(SAMPLE), exact(SAMPLE)
    assert not torch.equal(inside, after) and not torch.equal(after, before)
    for name, weight in model.named_parameters():
        if weight.ndim == 4:
            steps = weight / weight.abs().amax((1, 2, 3), keepdim=True) * fake_quant.LARGEST
            torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3, msg=name)


def test_correcting_biases_brings_a_rounded_student_closer() -> None:
    model = fake_quant.fold(small_classifier(), SAMPLE)
    plain, corrected = copy.deepcopy(model), copy.deepcopy(model)
    for module in plain.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = fake_quant.FakeQuantWeight()(module.weight.data)
    with fake_quant.fake_quantized(corrected, to_float(IMAGES[:32])):
        pass
    unseen = to_float(IMAGES[40:])
    with torch.no_grad():
        lost = [qat.divergence(other, model, unseen).item() for other in (plain, corrected)]
    assert lost[1] < 0.8 * lost[0]


def test_training_heals_a_student_with_too_few_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_quant, "LARGEST", 3)  # weights of two bits and a sign
    student, rows, unseen = small_classifier(), np.arange(40), to_float(IMAGES[40:])
    tuned = {lr: qat.fine_tune(student, IMAGES, rows, settings(lr=lr), 10) for lr in (1e-12, 1e-3)}
    with torch.no_grad():
        lost = {lr: qat.divergence(learner, student, unseen).item() for lr, learner in tuned.items()}
    assert lost[1e-3] < 0.5 * lost[1e-12]


def test_the_same_seed_gives_the_same_weights() -> None:
    first, again, other = (
        qat.fine_tune(small_classifier(), IMAGES, np.arange(16), changed, 1).state_dict()
        for changed in (settings(lr=1e-3), settings(lr=1e-3), settings(lr=2e-3))
    )
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_a_loss_that_is_no_number_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"became (nan|inf) in epoch 1; lower quantize\.qat\.lr \(now 3e\+37\)"):
        qat.fine_tune(small_classifier(), IMAGES, np.arange(40), settings(lr=3e37), 1)


@pytest.mark.parametrize("scheme", ["qat_0", "qat_x", "qat", "qat_1.5"])
def test_a_scheme_without_a_number_of_epochs_is_refused(project: Path, scheme: str) -> None:
    change_params(project, {"quantize.candidates": ["minmax", scheme]})
    with pytest.raises(UserError, match=rf"quantize\.candidates\.1: .*not '{scheme}'") as caught:
        params.load()
    assert "\n" not in str(caught.value)


def test_the_stage_trains_where_a_scheme_asks_for_it(project: Path) -> None:
    spec = params.load().students["smaller"]
    cut = {"stages": 1, "blocks": 1, "head": 16}
    models.save("models/students/student_smaller_s0", small_classifier(), models.build(spec)[1] | {"cut": cut})
    limits = {"max_auc_drop": 1.0, "max_ece_rise": 1.0, "min_agreement": 0.0, "min_equal_decisions": 0.0}
    changes = {f"quantize.limits.{name}": value for name, value in limits.items()}
    change_params(project, {"quantize.candidates": ["minmax"], "quantize.calibration_images": 16} | changes)
    quantize_stage.main("smaller", "0")
    without = read_json(f"models/students/{ID}/report.json")
    model = Path(f"models/students/{ID}/model.onnx")
    before = model.read_bytes()
    change_params(project, {"quantize.candidates": ["qat_1", "minmax"]})
    quantize_stage.main("smaller", "0")
    report = read_json(f"models/students/{ID}/report.json")
    assert (
        list(report["candidates"]) == ["qat_1", "minmax"]
        and report["scheme"] == "qat_1"
        and model.read_bytes() != before
    )
    assert overflowing(model) == 0 and report["candidates"]["qat_1"]["mean_abs_dp"] > 0
    assert {**report["candidates"]["minmax"], "time_ratio": 0} == {**without["candidates"]["minmax"], "time_ratio": 0}
    assert np.isfinite(Detector(model).predict(IMAGES[:, :32, :48].copy())).all()
    assert math.isfinite(report["candidates"]["qat_1"]["auc_drop"])
