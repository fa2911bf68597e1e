"""Grad-CAM finds the place that was planted, features are what the last layer sees, neighbours are the nearest."""

import numpy as np
import pandas as pd
import pytest
import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from dermdistill import explain
from dermdistill.errors import UserError
from dermdistill.evaluation import cases
from dermdistill.params import Cut, Model
from dermdistill.reporting import panels
from dermdistill.training import models
from dermdistill.training.augment import to_float

SPEC = {"weights": "none", "epochs": 1, "lr": 0.1, "size": None, "dropout": 0.1}
SPEC |= {"drop_path": 0.0, "mixup": 0.0, "keep": "best"}


class Brightness(nn.Module):
    """Logit 1 is how bright the picture is, cell by cell; logit 0 is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(8)

    def forward(self, images: Tensor) -> Tensor:
        cells = self.pool(images.mean(dim=1, keepdim=True))
        bright = cells.sum(dim=(1, 2, 3))
        return torch.stack([0 * bright, bright], dim=1)


def test_the_map_is_where_the_evidence_was_planted() -> None:
    images = np.zeros((2, 32, 48, 3), np.uint8)
    images[0, 8:16, 32:40] = 255
    maps = explain.grad_cam(Brightness(), images, target=1)  # type: ignore[arg-type]
    assert maps.shape == (2, 32, 48) and maps[0].max() == pytest.approx(1) and maps[0].min() >= 0
    row, column = np.unravel_index(maps[0].argmax(), maps[0].shape)
    assert 8 <= row < 16 and 32 <= column < 40
    assert not maps[1].any()  # nothing speaks for it: no map, and no division by zero


class BrightPatches(nn.Module):
    """Logit 1 is how bright the picture is, patch by patch; behind the norm comes a class token that reads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed((32, 48), patch_size=8, embed_dim=2, bias=False)
        nn.init.constant_(self.patch_embed.proj.weight, 1 / (3 * 8 * 8))
        self.norm1, self.norm, self.num_prefix_tokens = nn.Identity(), nn.Identity(), 1

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        tokens = self.norm1(torch.cat([torch.zeros(len(images), 1, 2), patches], dim=1))
        bright = self.norm(tokens.mean(dim=1, keepdim=True) + 0 * tokens)[:, 0].sum(dim=1)
        return torch.stack([0 * bright, bright], dim=1)


def test_the_map_of_a_transformer_is_where_the_evidence_was_planted() -> None:
    images = np.zeros((2, 32, 48, 3), np.uint8)
    images[0, 8:16, 32:40] = 255
    maps = explain.grad_cam(BrightPatches(), images, target=1)  # type: ignore[arg-type]
    row, column = np.unravel_index(maps[0].argmax(), maps[0].shape)
    assert maps.shape == (2, 32, 48) and maps[0].max() == pytest.approx(1) and not maps[1].any()
    assert 8 <= row < 16 and 32 <= column < 40


@pytest.mark.parametrize("arch", ["test_vit", "test_vit2"])  # pooled by class token; by the mean of all tokens
def test_a_vits_map_is_of_tokens_that_move_the_logit(arch: str) -> None:
    torch.manual_seed(0)
    model = models.build(Model(arch=arch, cut=None, **SPEC | {"size": [64, 96]}))[0].eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    kept: list[Tensor] = []
    source = model.network.blocks[-1].norm1 if arch == "test_vit" else model.network.norm  # type: ignore[index]
    source.register_forward_hook(lambda _, __, output: kept.append(output))  # type: ignore[operator, union-attr]
    maps = explain.grad_cam(model, images, target=1)
    (slopes,) = torch.autograd.grad(model(to_float(images))[:, 1].sum(), kept[-1:])
    by_hand = (kept[-1][:, 1:] * slopes[:, 1:].mean(1, keepdim=True)).sum(2).relu().reshape(2, 1, 4, 6)
    grown = torch.nn.functional.interpolate(by_hand, (64, 96), mode="bilinear")[:, 0].detach().numpy()
    np.testing.assert_allclose(maps, grown / grown.max(axis=(1, 2), keepdims=True), atol=1e-4)


def test_a_transformer_without_tokens_of_patches_is_refused() -> None:
    model = BrightPatches()
    model.norm1 = None  # type: ignore[assignment]
    model.forward = lambda images: images.mean((2, 3))[:, :2]  # type: ignore[method-assign]
    with pytest.raises(UserError, match="Grad-CAM finds no tokens"):
        explain.grad_cam(model, np.zeros((1, 32, 48, 3), np.uint8), target=1)  # type: ignore[arg-type]


LITE, CUT = "tf_efficientnet_lite0", Cut(stages=1, blocks=1, head=16)


@pytest.mark.parametrize(
    ("arch", "cut", "size"),
    [(LITE, CUT, None), (LITE, CUT, [96, 144]), ("mobilenetv3_small_100", None, None), ("test_vit", None, [64, 96])],
)
def test_any_network_has_maps_and_features(arch: str, cut: Cut | None, size: list[int] | None) -> None:
    torch.manual_seed(0)
    model = models.build(Model(arch=arch, cut=cut, **SPEC | {"size": size}))[0].eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    maps = explain.grad_cam(model, images, target=1)
    assert maps.shape == (3, 64, 96) and np.isfinite(maps).all() and maps.max() <= 1 + 1e-6
    found = explain.features(model, images, np.array([2, 0]), batch_size=1)
    with torch.inference_mode():
        logits = model(to_float(images[[2, 0]]))
        again = model.network.get_classifier()(torch.from_numpy(found))  # type: ignore[operator]
    torch.testing.assert_close(again, logits, rtol=1e-4, atol=1e-4)


def test_the_stage_takes_the_cases_that_were_picked() -> None:
    from stages import explain as stage

    assert stage.LEAST == cases.LEAST


def test_neighbours_by_hand() -> None:
    bank = np.array([[1, 0], [0, 1], [2, 0.1]], np.float32)
    distances, rows = explain.neighbours(bank, np.array([[3, 0]], np.float32), count=2)
    assert rows.tolist() == [[0, 2]] and distances[0, 0] == pytest.approx(0, abs=1e-6)
    assert explain.neighbours(bank, bank, count=9)[1].shape == (3, 3)  # no more than there are


def test_an_overlay_leaves_alone_what_has_no_heat() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    heat = np.zeros((4, 4))
    heat[0, 0] = 1
    shown = panels.overlay(image, heat)
    assert (shown[1:] == 100).all() and (shown[0, 0] != 100).any() and shown.dtype == np.uint8


def test_panels_hold_every_picture() -> None:
    picture = np.zeros((12, 16, 3), np.uint8)
    case = {"image_id": "ISIC_1", "dx": "mel"}
    case |= {
        f"{key}_{role}": value
        for role in ("teacher", "student")
        for key, value in (("p_mel", 0.1), ("diagnosis", "nv"))
    }  # type: ignore[misc]
    maps = {role: np.zeros((2, 12, 16)) for role in ("teacher", "student")}
    assert len(panels.grad_cam([case, case], [picture, picture], maps).axes) == 6  # type: ignore[list-item]
    row = ("ISIC_1", "mel", 0.1, 1, "ISIC_2", "nv", 0.2)
    table = pd.DataFrame([row], columns=panels.NEIGHBOURS)
    assert len(panels.neighbours(table, {"ISIC_1": picture, "ISIC_2": picture}).axes) == 2
