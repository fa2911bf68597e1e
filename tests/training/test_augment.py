"""A view depends on seed, epoch and image alone; geometry neither shears nor loses a lesion."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dermdistill.errors import UserError
from dermdistill.params import Augment
from dermdistill.training.augment import augment, to_float
from dermdistill.training.models import Classifier

NOTHING = Augment(**dict.fromkeys(set(Augment.model_fields) - {"hair", "jpeg"}, 0.0), hair=0, jpeg=0)
TODAY = NOTHING.model_copy(
    update={"rotate": 180, "scale": 0.2, "shift": 0.08}
    | {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "color_cast": 0.08}
)
MARKS = {"hair": 4, "blur": 6.0, "erase": 0.4}
EVERYTHING = TODAY.model_copy(update=MARKS | {"stretch": 0.3, "gamma": 0.3, "vignette": 0.5, "jpeg": 40})
ROWS = np.arange(12) * 31 + 5
SEEDS = st.integers(0, 2**32 - 1)


def only(**settings: float) -> Augment:
    return NOTHING.model_copy(update=settings)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(len(ROWS), 3, 24, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def disc() -> Tensor:
    """A soft white disc in the middle of black, (12, 3, 120, 160): one copy for each of ROWS.

    Small enough (16 < 120 − the half diagonal) that no reflection at the border shows it a second time.
    """
    y, x = grid()
    return (16 - (x**2 + y**2).sqrt()).clamp(0, 1).expand(len(ROWS), 3, 120, 160).clone()


def grid(height: int = 120, width: int = 160) -> tuple[Tensor, Tensor]:
    """y and x of each pixel from the image's centre, (height, width) each."""
    y, x = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    return tuple(torch.meshgrid(y, x, indexing="ij"))  # type: ignore[return-value]


def bar(length: float, width: float) -> Tensor:
    """A soft horizontal bar, (12, 3, 120, 160); lengths from its middle."""
    y, x = grid()
    return ((length - x.abs()).clamp(0, 1) * (width - y.abs()).clamp(0, 1)).expand(len(ROWS), 3, 120, 160)


def moments(image: Tensor) -> tuple[float, float, float, float, float]:
    """Mass, centre and standard deviations (x, y) of the first channel, in pixels from the image's centre."""
    mass = image[0].double()
    y, x = grid(*mass.shape)
    cx, cy = ((axis * mass).sum() / mass.sum() for axis in (x, y))
    sx, sy = (((axis - c) ** 2 * mass).sum().div(mass.sum()).sqrt() for axis, c in ((x, cx), (y, cy)))
    return mass.sum().item(), cx.item(), cy.item(), sx.item(), sy.item()


@given(SEEDS, st.integers(0, 500), st.permutations(range(len(ROWS))), st.integers(1, len(ROWS)))
def test_a_view_does_not_depend_on_the_batch_around_it(
    images: Tensor, seed: int, epoch: int, order: list[int], size: int
) -> None:
    together = augment(images, ROWS, EVERYTHING, seed, epoch)
    picked = order[:size]
    assert torch.equal(augment(images[picked], ROWS[picked], EVERYTHING, seed, epoch), together[picked])


def test_views_differ_by_epoch_seed_and_image(images: Tensor) -> None:
    same = images[:1].expand(len(ROWS), -1, -1, -1)
    views = [augment(same, ROWS, EVERYTHING, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    every = torch.cat(views)
    distances = (every[:, None] - every[None]).abs().amax((2, 3, 4))
    assert (distances + torch.eye(len(every)) > 1e-3).all()


@pytest.mark.parametrize("seed", [2**21, 2**31, 2**32 - 1])
def test_large_seeds_keep_the_epochs_apart(images: Tensor, seed: int) -> None:
    views = {augment(images[:1], ROWS[:1], EVERYTHING, seed, epoch).numpy().tobytes() for epoch in range(10)}
    assert len(views) == 10


def test_the_same_call_gives_the_same_bits_whatever_torch_drew_before(images: Tensor) -> None:
    before = images.clone()
    first = augment(images, ROWS, EVERYTHING, 3, 4)
    torch.manual_seed(99)
    torch.rand(7)
    assert torch.equal(augment(images, ROWS, EVERYTHING, 3, 4), first)
    assert torch.equal(images, before)  # a view is a copy


@given(SEEDS, st.integers(0, 100))
def test_views_stay_in_range_and_shape(images: Tensor, seed: int, epoch: int) -> None:
    views = augment(images, ROWS, EVERYTHING, seed, epoch)
    assert views.shape == images.shape and views.dtype == torch.float32
    assert views.min() >= 0 and views.max() <= 1
    assert torch.isfinite(views).all()


def test_with_every_setting_0_only_the_flip_remains(images: Tensor) -> None:
    """The flip has no setting: a lesion has no mirror side. About half of the images are flipped."""
    flipped = 0
    for epoch in range(10):
        views = augment(images, ROWS, NOTHING, 0, epoch)
        kept = [torch.allclose(v, i, atol=1e-5) for v, i in zip(views, images, strict=True)]
        mirrored = [torch.allclose(v, i.flip(-1), atol=1e-5) for v, i in zip(views, images, strict=True)]
        assert all(a != b for a, b in zip(kept, mirrored, strict=True))
        flipped += sum(mirrored)
    assert 40 <= flipped <= 80  # of 120


def test_a_rotated_disc_stays_a_disc_of_the_same_size_in_the_same_place(disc: Tensor) -> None:
    mass, _, _, deviation, _ = moments(disc[0])
    for epoch in range(4):
        for view in augment(disc, ROWS, only(rotate=180.0), 0, epoch):
            found, cx, cy, sx, sy = moments(view)
            assert found == pytest.approx(mass, rel=0.01)
            assert abs(cx) < 0.05 and abs(cy) < 0.05
            assert sx == pytest.approx(deviation, rel=0.01) and sy == pytest.approx(deviation, rel=0.01)


def test_rotation_turns_by_any_angle_without_shear() -> None:
    """A bar's second moments keep their eigenvalues while its direction goes round."""
    y, x = grid()
    angles = []
    for epoch in range(8):
        for view in augment(bar(18, 6), ROWS, only(rotate=180.0), 0, epoch):
            mass = view[0].double()
            points = torch.stack([x.double().flatten(), y.double().flatten()])
            spread = (points * mass.flatten()) @ points.T / mass.sum()
            values, vectors = torch.linalg.eigh(spread)
            assert values.sqrt().tolist() == pytest.approx([5.5 / 3**0.5, 17.5 / 3**0.5], rel=0.03)
            angles.append(torch.atan2(vectors[1, 1], vectors[0, 1]).rad2deg().item() % 180)
    assert np.histogram(angles, 6, (0, 180))[0].min() >= 5  # of 96 in six bins


def test_rotation_stays_within_its_setting() -> None:
    y, x = grid()
    angles = []
    for epoch in range(6):
        for view in augment(bar(40, 5), ROWS, only(rotate=20.0), 0, epoch):
            covariance = (x * y * view[0]).sum() / view[0].sum()
            variances = ((x**2 - y**2) * view[0]).sum() / view[0].sum()
            angles.append(0.5 * torch.atan2(2 * covariance, variances).rad2deg().item())
    assert max(angles) <= 20.5 and min(angles) >= -20.5
    assert max(angles) > 14 and min(angles) < -14


def test_zoom_stays_within_its_setting_and_keeps_the_shape(disc: Tensor) -> None:
    _, _, _, deviation, _ = moments(disc[0])
    ratios = []
    for epoch in range(6):
        for view in augment(disc, ROWS, only(scale=0.2), 0, epoch):
            _, cx, cy, sx, sy = moments(view)
            assert sx == pytest.approx(sy, rel=0.01) and abs(cx) < 0.05 and abs(cy) < 0.05
            ratios.append(sx / deviation)
    assert 0.79 < min(ratios) < 0.87 and 1.13 < max(ratios) < 1.21


def test_shift_is_a_share_of_the_side(disc: Tensor) -> None:
    shifts = []
    for epoch in range(8):
        for view in augment(disc, ROWS, only(shift=0.1), 0, epoch):
            mass, cx, cy, _, _ = moments(view)
            assert mass == pytest.approx(moments(disc[0])[0], rel=0.01)
            shifts.append((abs(cx) / 160, abs(cy) / 120))
    furthest = np.max(shifts, axis=0)
    assert (furthest <= 0.102).all() and (furthest > 0.085).all()


def test_corners_are_filled_by_reflection_not_black() -> None:
    white = torch.ones(len(ROWS), 3, 24, 32)
    assert augment(white, ROWS, only(rotate=180.0, shift=0.3, scale=0.5), 0, 0).min() > 0.999


@pytest.mark.parametrize(
    ("name", "value"), [("brightness", 0.2), ("contrast", 0.5), ("saturation", 0.5), ("color_cast", 0.1)]
)
def test_each_colour_setting_changes_what_its_name_says(name: str, value: float) -> None:
    y = torch.linspace(0.3, 0.5, 32).expand(24, 32)
    flat = torch.stack([y * 1.2, y, y * 0.8]).expand(len(ROWS), 3, 24, 32).contiguous()
    views = augment(flat, ROWS, only(**{name: value}), 0, 0)
    views = torch.where((views[:, :1, :, :1] > views[:, :1, :, -1:]), views.flip(-1), views)  # undo the flip
    assert not torch.allclose(views, flat, atol=1e-3)
    ratio, luma = views / flat, torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    grey, old_grey = (views * luma).sum(1), (flat * luma).sum(1)
    if name == "brightness":  # one gain for all channels and pixels, within the setting
        assert (ratio.amax((1, 2, 3)) - ratio.amin((1, 2, 3))).max() < 1e-4
        assert ratio.min() >= 1 - value - 1e-5 and ratio.max() <= 1 + value + 1e-5
    elif name == "color_cast":  # one gain for each channel
        gains = ratio.mean((2, 3))
        assert (ratio - gains[..., None, None]).abs().max() < 1e-4
        assert (gains.amax(1) - gains.amin(1)).max() > 0.02 and (gains - 1).abs().max() <= value + 1e-5
    elif name == "saturation":  # luma stays
        assert torch.allclose(grey, old_grey, atol=1e-4)
    else:  # contrast: the mean stays, the spread changes
        assert torch.allclose(grey.mean((1, 2)), old_grey.mean((1, 2)), atol=1e-4)
        spreads = grey.std((1, 2)) / old_grey.std((1, 2))
        assert spreads.min() < 0.8 and spreads.max() > 1.2


# --- hairs, blur, a patch left out -------------------------------------------------------------------------------


def test_marks_leave_the_draws_of_geometry_and_colour_alone(images: Tensor) -> None:
    """Where no mark fell, a view is the one without marks, bit by bit."""
    plain = augment(images, ROWS, TODAY, 1, 2)
    for settings in ({"erase": 0.3}, {"hair": 3}):
        marked = augment(images, ROWS, TODAY.model_copy(update=settings), 1, 2)
        changed = (marked != plain).any(1).float().mean((1, 2))
        assert 0 < changed.mean() < 0.6 and changed.min() < 0.3, settings


def test_hairs_are_thin_dark_lines_in_half_of_the_views() -> None:
    white = torch.ones(len(ROWS), 3, 100, 140)
    views = torch.cat([augment(white, ROWS, only(hair=1), 0, epoch) for epoch in range(10)])
    dark = (views[:, 0] < 0.5).float()
    there = dark.sum((1, 2)) > 0
    assert 0.3 < there.float().mean() < 0.6
    assert dark[there].mean((1, 2)).max() < 0.06  # a line of 3 pixels in a field of 100
    assert views.min() == pytest.approx(0.2) and views.max() == 1
    for hair in dark[there]:  # from edge to edge
        edge = torch.cat([hair[:2].flatten(), hair[-2:].flatten(), hair[:, :2].flatten(), hair[:, -2:].flatten()])
        assert edge.sum() > 0
    assert (augment(white, ROWS, only(hair=12), 0, 0) < 0.5).float().mean() > dark.mean()


def test_blur_widens_a_point_by_sigma_and_keeps_its_mass() -> None:
    point = torch.zeros(len(ROWS), 3, 41, 41)
    point[:, :, 20, 20] = 1
    sigmas = []
    for epoch in range(4):
        for view in augment(point, ROWS, only(blur=200 / 41), 0, epoch):
            mass, cx, cy, sx, sy = moments(view)
            assert mass == pytest.approx(1, rel=1e-3) and abs(cx) < 1e-3 and abs(cy) < 1e-3
            assert sx == pytest.approx(sy, abs=1e-3)
            sigmas.append(sx)
    assert min(sigmas) < 0.4 and 1.6 < max(sigmas) < 2.0  # the tails beyond 3 σ are cut


def test_blur_wider_than_the_image_is_a_sentence(images: Tensor) -> None:
    with pytest.raises(UserError, match=r"train\.augment\.blur 40\.0 is too much for images 24 high; lower it"):
        augment(images, ROWS, only(blur=40.0), 0, 0)


def test_a_patch_takes_the_mean_colour_within_its_size() -> None:
    y = torch.linspace(0, 1, 100 * 160).view(100, 160)
    image = torch.stack([y, 1 - y, y]).expand(len(ROWS), 3, 100, 160)
    shares = []
    for epoch in range(6):
        views, plain = (augment(image, ROWS, only(erase=share), 0, epoch) for share in (0.5, 0.0))
        changed = ((views - plain).abs() > 1e-6).any(1)
        assert (views.permute(0, 2, 3, 1)[changed] - 0.5).abs().max() < 1e-4  # a wider ramp has mean 0.5 too
        for mask in changed:
            rows, columns = mask.any(1).float().mean(), mask.any(0).float().mean()
            assert mask.float().mean() == pytest.approx(float(rows * columns), abs=0.02)  # a rectangle
            shares.append([float(rows), float(columns)])
    assert 0.35 < np.max(shares) <= 0.51 and np.min(shares) < 0.1


# --- another camera ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [{"stretch": 0.2}, {"gamma": 0.3}, {"vignette": 0.5}, {"jpeg": 30}])
def test_another_camera_leaves_earlier_draws_alone(images: Tensor, setting: dict[str, float]) -> None:
    """The marks of a view stay where they are: without the setting it is the same view, bit by bit."""
    marked = TODAY.model_copy(update=MARKS)
    plain, other = (augment(images, ROWS, one, 1, 2) for one in (marked, marked.model_copy(update=setting)))
    assert not torch.equal(plain, other)
    assert torch.equal(augment(images, ROWS, marked.model_copy(update=dict.fromkeys(setting, 0)), 1, 2), plain)


def test_stretching_keeps_the_area_and_its_limits(disc: Tensor) -> None:
    ratios = []
    for epoch in range(6):
        for view in augment(disc, ROWS, only(stretch=0.5), 0, epoch):
            mass, cx, cy, sx, sy = moments(view)
            assert mass == pytest.approx(float(disc[0, 0].sum()), rel=0.02) and abs(cx) + abs(cy) < 0.1
            ratios.append(sx / sy)
    assert 1 / 1.55 < min(ratios) < 0.75 and 1.35 < max(ratios) < 1.55


def test_gamma_keeps_black_and_white_and_bends_between() -> None:
    ramp = torch.linspace(0, 1, 65).expand(len(ROWS), 3, 24, 65)
    views = torch.cat([augment(ramp, ROWS, only(gamma=0.5), 0, epoch) for epoch in range(6)])
    ends = torch.stack([views[..., 0], views[..., -1]]).sort(0).values  # half of the views are mirrored
    assert (ends[0] < 0.03).all() and (ends[1] > 0.97).all()
    exponents = views[:, 0, 12, 32].log() / torch.tensor(0.5).log()
    assert 1 / 1.52 < exponents.min() < 0.75 and 1.35 < exponents.max() < 1.52


def test_a_vignette_darkens_the_corners_of_its_share_of_views_and_not_the_middle() -> None:
    white = torch.ones(len(ROWS), 3, 96, 128)
    views = torch.cat([augment(white, ROWS, only(vignette=0.4), 0, epoch) for epoch in range(25)])
    round_field = (views != 1).flatten(1).any(1)
    assert round_field.float().mean() == pytest.approx(0.4, abs=0.08)
    corners = torch.stack([views[:, 0, i, j] for i in (0, -1) for j in (0, -1)])
    assert (corners[:, round_field] < 0.2).all() and (views[:, :, 44:52, 60:68] == 1).all()
    assert (augment(white, ROWS, only(vignette=1.0), 0, 0)[:, 0, 0, 0] < 0.2).all()


def test_jpeg_saves_half_of_the_views_no_worse_than_its_quality(images: Tensor) -> None:
    smooth = torch.nn.functional.interpolate(images, (96, 128), mode="bicubic").clamp(0, 1)
    errors = []
    for quality in (20, 90):
        for epoch in range(8):
            plain, saved = (augment(smooth, ROWS, one, 0, epoch) for one in (NOTHING, only(jpeg=quality)))
            errors.append((saved - plain).abs().mean((1, 2, 3)))
    untouched = torch.stack(errors) == 0
    assert untouched.float().mean() == pytest.approx(0.5, abs=0.1) and torch.equal(untouched[:8], untouched[8:])
    rough, fine = torch.stack(errors[:8]), torch.stack(errors[8:])
    assert fine.max() < 0.04 and rough.mean() > 1.5 * fine.mean()


@pytest.mark.parametrize("size", [[24, 32], [18, 25], [36, 48]])
def test_views_at_a_size_of_their_own_are_what_the_network_would_resize_to(size: list[int]) -> None:
    """To the rounding of a byte after each of two directions; unresized, bit by bit."""
    raw = np.random.default_rng(0).integers(0, 256, (5, 24, 32, 3), np.uint8)
    inside = Classifier(torch.nn.Identity(), (0.0,) * 3, (1.0,) * 3, size)(to_float(raw))
    before = to_float(raw, size=size)
    assert before.shape == (5, 3, *size) and before.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(before, inside, atol=1.5 / 255)
    assert size != [24, 32] or torch.equal(before, inside)


def test_bytes_become_floats_from_0_to_1() -> None:
    pixels = np.zeros((2, 4, 6, 3), np.uint8)
    pixels[0, 1, 2] = (255, 51, 0)
    found = to_float(pixels)
    assert found.shape == (2, 3, 4, 6) and found.dtype == torch.float32
    assert found[0, :, 1, 2].tolist() == pytest.approx([1.0, 0.2, 0.0]) and found.sum() == pytest.approx(1.2)
