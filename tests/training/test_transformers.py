"""Vision transformers: image sizes, what learns at what rate, drop path, feature maps, export, resuming."""

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from helpers import SMALL, change_params
from timm.layers import DropPath, PatchEmbed, resample_abs_pos_embed
from torch import Tensor

from dermdistill import params
from dermdistill.core.files import sha256
from dermdistill.deployment import onnx_export
from dermdistill.deployment.runtime import Detector
from dermdistill.distillation import ensemble, feature_losses
from dermdistill.errors import UserError
from dermdistill.params import Cut, Model
from dermdistill.training import checkpoint, models, optim
from dermdistill.training.maps import Patches, feature_map, patches
from stages import train_teacher

VIT = {"arch": "test_vit", "cut": None}  # 6 blocks of 64 channels, patches of 16 × 16, made for 160 × 160
TEACHER = Path("models/teachers/teacher_small")
pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")


def spec(**changes: object) -> Model:
    return Model(**(SMALL | VIT | {"epochs": 1, "lr": 1e-3, "dropout": 0.0, "keep": "last"} | changes))


def images(n: int, height: int, width: int) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


# --- size -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["test_vit", "test_vit2", "test_vit3"])  # class token; register token; both kinds
def test_a_vit_is_made_for_the_prepared_images_and_loaded_so(arch: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, card = models.build(spec(arch=arch), (48, 64))
    assert card["size"] == [48, 64] == model.size and patches(model.network) == Patches(3, 4, 1)
    models.save(tmp_path, model, card)
    torch.manual_seed(1)
    loaded, read = models.load(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(images(2, 48, 64)), model.eval()(images(2, 48, 64))) and read == card
        assert loaded(images(2, 60, 80)).shape == (2, 7), "other images are resized inside"


def test_its_own_size_comes_first_and_without_any_its_authors() -> None:
    assert models.build(spec(size=[32, 96]), (48, 64))[1]["size"] == [32, 96]
    assert models.build(spec())[1]["size"] == [160, 160]


def test_position_embeddings_are_interpolated_once(tmp_path: Path) -> None:
    source = timm.create_model("test_vit").state_dict()
    path = tmp_path / "vit.safetensors"
    safetensors.torch.save_file(source, path)
    wanted = spec(weights=f"{path}@{sha256(path)}", size=[32, 48])
    model, card = models.build(wanted)
    expected = resample_abs_pos_embed(source["pos_embed"], [2, 3], [10, 10], num_prefix_tokens=1)
    ours = model.network.state_dict()
    assert torch.equal(ours["pos_embed"], expected) and expected.shape == (1, 7, 64)
    assert all(torch.equal(ours[k], v) for k, v in source.items() if k != "pos_embed" and not k.startswith("head"))
    models.save(tmp_path, model, card)
    own = tmp_path / "model.safetensors"
    again = spec(weights=f"{own}@{sha256(own)}", size=[32, 48])
    assert torch.equal(models.build(again)[0].network.pos_embed, model.network.pos_embed)  # type: ignore[arg-type]
    with pytest.raises(
        UserError, match=r"pos_embed is \(1, 7, 64\) in the file and \(1, 13, 64\) .* correct arch, cut, s"
    ):
        models.build(again.model_copy(update={"size": [48, 64]}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"size": [150, 200]},
            r"patches of 16 × 16 .*150 × 200 is no multiple of; .*nearest that fits is \[144, 192\]",
        ),
        ({"size": [31, 48]}, r"nearest that fits is \[32, 48\]"),
        ({"arch": "vit_small_patch14_dinov2", "size": [150, 200]}, r"patches of 14 × 14.*fits is \[154, 196\]"),
        ({"arch": "mixer_s32_224", "size": [64, 64]}, r"mixer_s32_224 cannot take .*64 × 64 .*size .* to \[224, 224\]"),
        ({"cut": Cut(stages=1, blocks=0, head=8)}, r"test_vit cannot be cut; set cut: null"),
        ({"arch": "efficientvit_m0", "drop_path": 0.1}, r"efficientvit_m0 has no drop path; set its drop_path to 0\.0"),
    ],
)
def test_what_does_not_fit_is_one_sentence(changes: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        models.build(spec(**changes))
    assert "\n" not in str(caught.value)


# --- what learns ------------------------------------------------------------------------------------------------


def settings(**changes: object) -> params.Train:
    return params.load().train.model_copy(update=changes)


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_only_matrices_of_layers_decay(layer_decay: float) -> None:
    network = (model := models.build(spec(), (32, 48))[0]).network
    groups = optim.parameter_groups(model, settings(layer_decay=layer_decay))
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    names = dict(network.named_parameters())
    assert len(decay) == len(names)
    decaying = {name for name, parameter in names.items() if decay[id(parameter)]}
    assert decaying == {name for name in names if name.endswith("weight") and "norm" not in name}


def test_each_block_is_a_layer() -> None:
    model = models.build(spec(), (32, 48))[0]
    groups = optim.parameter_groups(model, settings(layer_decay=0.5))
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    for name, parameter in model.network.named_parameters():
        block = re.match(r"blocks\.(\d)\.", name)
        below = 6 - int(block[1]) if block else {"head": 0, "norm": 1}.get(name.partition(".")[0], 7)
        assert scale[id(parameter)] == 0.5**below, name


def test_frozen_stages_are_the_first_blocks() -> None:
    model = models.build(spec(), (32, 48))[0]
    optim.freeze(model, 2)
    learning = {name.rpartition(".")[0] for name, p in model.network.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("blocks.0", "blocks.1", "patch_embed")) or not name for name in learning)
    assert {"blocks.2.attn.qkv", "norm", "head"} <= learning
    with pytest.raises(UserError, match=r"frozen_stages is 7, but there are only 6"):
        optim.freeze(model, 7)


def test_drop_path_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    dropping = models.build(spec(drop_path=0.9), (32, 48))[0]
    torch.manual_seed(0)
    plain = models.build(spec(), (32, 48))[0]
    x = images(8, 32, 48)
    with torch.no_grad():
        assert torch.equal(dropping.eval()(x), plain.eval()(x)) and torch.equal(plain.train()(x), plain.eval()(x))
        assert not torch.allclose(dropping.train()(x), plain(x))


def test_drop_path_0_is_0_also_where_the_author_chose_another() -> None:
    assert any(isinstance(module, DropPath) for module in timm.create_model("swin_tiny_patch4_window7_224").modules())
    network = models.build(spec(arch="swin_tiny_patch4_window7_224"), (64, 64))[0].network
    assert not any(isinstance(module, DropPath) for module in network.modules())


def test_a_training_that_was_killed_ends_with_the_same_bits(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = {f"teachers.small.{key}": value for key, value in VIT.items()}
    change_params(project, start | {"teachers.small.drop_path": 0.3, "train.layer_decay": 0.7})
    train_teacher.main("small")
    whole = (TEACHER / "model.safetensors").read_bytes()
    write = checkpoint.write

    def write_and_stop(path: Path, state: dict[str, object]) -> None:
        write(path, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "write", write_and_stop)
        train_teacher.main("small")
    (TEACHER / "model.safetensors").unlink()
    train_teacher.main("small")
    assert (TEACHER / "model.safetensors").read_bytes() == whole
    change_params(project, {"teachers.small.drop_path": 0.0})
    train_teacher.main("small")
    assert (TEACHER / "model.safetensors").read_bytes() != whole


# --- maps -------------------------------------------------------------------------------------------------------


def test_tokens_lie_row_by_row_behind_those_without_a_place() -> None:
    tokens = torch.arange(7.0)[None, :, None].expand(2, 7, 5)
    found = feature_map(tokens, Patches(2, 3, 1))
    assert found is not None and found.shape == (2, 5, 2, 3) and found[1, 4].tolist() == [[1, 2, 3], [4, 5, 6]]
    bare = feature_map(tokens[:, 1:], Patches(2, 3, 1))
    assert bare is not None and torch.equal(bare, found)
    heads = torch.zeros(2, 3, 7, 5)
    for other in (tokens[:, :5], tokens[:, 0], heads, (tokens,)):
        assert feature_map(other, Patches(2, 3, 1)) is None
    assert feature_map(heads, None) is heads and feature_map(heads[:, :, :1, :1], None) is None


def test_the_patches_are_those_of_the_image() -> None:
    """A patch that changes in the image changes its own place of the embedding."""
    network = models.build(spec(), (32, 48))[0].network
    embed = network.patch_embed
    assert isinstance(embed, PatchEmbed)
    x, changed = torch.zeros(1, 3, 32, 48), torch.zeros(1, 3, 32, 48)
    changed[:, :, 16:, :16] = 1.0
    difference = feature_map((embed(changed) - embed(x)).flatten(1, -2), patches(network))
    assert difference is not None and difference.abs().sum((0, 1)).nonzero().tolist() == [[1, 0]]


@pytest.mark.parametrize("method", ["at", "feature"])
def test_a_student_learns_the_maps_of_a_vit(method: str) -> None:
    torch.manual_seed(0)
    vit = models.build(spec(), (64, 96))[0].eval()
    student = models.build(spec(arch="resnet10t"), (64, 96))[0].train()
    kept: list[Tensor] = []
    vit.network.norm.register_forward_hook(lambda _, __, output: kept.append(output))
    term = feature_losses.make_feature_loss(method, student, teacher := ensemble.Ensemble([vit]), (64, 96))
    x = images(4, 64, 96)
    student(x), teacher(x)
    value = term()
    value.backward()  # type: ignore[no-untyped-call]
    assert value > 0 and any(p.grad is not None and p.grad.any() for p in student.network.parameters())
    theirs = kept[-1][:, 1:].transpose(1, 2).reshape(4, 64, 4, 6)
    assert torch.equal(feature_losses.Maps(vit).by_size.get((4, 6), theirs), theirs)
    if method == "feature":
        assert student.projections[0].out_channels == 64


def test_networks_with_channels_last_have_no_maps() -> None:
    network = models.build(spec(arch="swin_tiny_patch4_window7_224"), (64, 64))[0].network
    with pytest.raises(UserError, match="puts channels last, such as Swin, has no feature maps here"):
        patches(network)


# --- export -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[models.Classifier, Path]:
    torch.manual_seed(0)
    model = models.build(spec(size=[48, 64]))[0].eval()
    path = tmp_path_factory.mktemp("onnx") / "fp32.onnx"
    assert onnx_export.to_onnx(model, 54, 72, path) < onnx_export.TOLERANCE
    return model, path


def pixels(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 54, 72, 3), np.uint8)


@pytest.mark.parametrize("n", [1, 5])
def test_the_graph_is_the_network_for_any_number_of_images(exported: tuple[models.Classifier, Path], n: int) -> None:
    model, path = exported
    with torch.inference_mode():
        expected = model(torch.from_numpy(pixels(n)).permute(0, 3, 1, 2).float() / 255).softmax(1).numpy()
    np.testing.assert_allclose(Detector(path).predict(pixels(n)), expected, atol=1e-5)
