"""Any image becomes upright RGB of the requested size, whole, never stretched; the same from a path and from bytes."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingest import profiles
from PIL import Image, ImageCms, ImageDraw, ImageOps

from dermdistill.errors import UserError
from dermdistill.ingest import pixels

HEIGHT, WIDTH = 60, 80
COLOUR = (200, 100, 50)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(content: bytes, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return pixels.read(content, "image", height, width)


def disc(width: int, height: int, radius: float) -> Image.Image:
    """A white disc in the middle of black, drawn eightfold so that its edge is soft."""
    large = Image.new("L", (width * 4, height * 4))
    box = [4 * (c + s * radius) for s in (-1, 1) for c in (width / 2, height / 2)]
    ImageDraw.Draw(large).ellipse(box, fill=255)
    return large.resize((width, height), Image.Resampling.BOX).convert("RGB")


def part_with_the_picture(result: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What is not mirrored, of a picture of ``size`` (width, height)."""
    height, width = result.shape[:2]
    scale = min(width / size[0], height / size[1])
    sides = [max(1, round(scale * side)) for side in size]
    left, top = (width - sides[0]) // 2, (height - sides[1]) // 2
    return result[top : top + sides[1], left : left + sides[0]]


def mirrored(before: int, count: int, size: int) -> np.ndarray:
    """(size,) indices 0 … count − 1 and back again, so often as it takes; 0 stands at ``before``."""
    period = max(2 * (count - 1), 1)
    place = (np.arange(size) - before) % period
    return np.minimum(place, period - place)


def spread(image: np.ndarray) -> tuple[float, float]:
    """Standard deviation of the bright mass along x and along y, in pixels."""
    mass = image[..., 0].astype(float)
    y, x = np.mgrid[: mass.shape[0], : mass.shape[1]]
    centre = [(axis * mass).sum() / mass.sum() for axis in (x, y)]
    return tuple(  # type: ignore[return-value]
        float(np.sqrt(((axis - c) ** 2 * mass).sum() / mass.sum())) for axis, c in zip((x, y), centre, strict=True)
    )


sides, targets = st.integers(16, 300), st.integers(1, 200)


@given(sides, sides, targets, targets, st.sampled_from(["PNG", "JPEG"]))
def test_any_size_becomes_the_requested_one(width: int, height: int, to_height: int, to_width: int, kind: str) -> None:
    result = read(encode(Image.new("RGB", (width, height), COLOUR), kind), to_height, to_width)
    assert result.shape == (to_height, to_width, 3) and result.dtype == np.uint8
    assert np.abs(result.astype(int) - COLOUR).max() <= 4  # JPEG rounds


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(600, 450), (450, 600), (500, 500), (900, 300), (61, 203)])
def test_a_centred_circle_stays_round_whatever_the_aspect(size: tuple[int, int], kind: str) -> None:
    radius = min(size) * 0.25
    result = read(encode(disc(*size, radius), kind))
    across, down = spread(part_with_the_picture(result, size))
    assert across == pytest.approx(down, rel=0.03)
    scale = min(WIDTH / size[0], HEIGHT / size[1])  # the picture fits inside
    assert across == pytest.approx(scale * radius / 2, rel=0.05)  # a disc's deviation is half its radius


@pytest.mark.parametrize("size", [(600, 450), (384, 288), (200, 150), (80, 60), (32, 24), (1600, 1200)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_four_by_three_image_is_scaled_and_nothing_else(size: tuple[int, int], kind: str) -> None:
    """The bits that it had when other pictures were cropped: HAM10000, and every result, is as it was."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    content = encode(Image.fromarray(noise), kind)
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (200, 200))
        scaled = image.resize((200, 150), Image.Resampling.BICUBIC)
        assert scaled.tobytes() == ImageOps.fit(image, (200, 150), Image.Resampling.BICUBIC).tobytes()
    assert (read(content, 150, 200) == np.asarray(scaled)).all()


@pytest.mark.parametrize("size", [(400, 900), (900, 400), (500, 500), (601, 450), (16, 320), (2000, 16), (16, 40_000)])
def test_the_whole_picture_is_in_the_middle_and_mirrored_around(size: tuple[int, int]) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8))
    result = read(encode(noise))
    inner = part_with_the_picture(result, size)
    height, width = inner.shape[:2]
    assert (width == WIDTH or height == HEIGHT) and min(width, height) >= 1
    assert (inner == np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))).all()
    rows, columns = (mirrored((n - m) // 2, m, n) for n, m in ((HEIGHT, height), (WIDTH, width)))
    assert (result == inner[rows][:, columns]).all()


def test_a_picture_is_turned_before_it_is_fitted() -> None:
    """A photograph of 4:3 whose EXIF stands it upright is 3:4, and has margins left and right."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8))
    upright = stored.transpose(Image.Transpose.ROTATE_270)
    assert (read(encode(stored, exif=exif)) == read(encode(upright))).all()


def test_shrinking_is_antialiased() -> None:
    checks = (np.indices((480, 640)).sum(0) % 2 * 255).astype(np.uint8)
    result = read(encode(Image.fromarray(checks)))
    assert np.abs(result.astype(int) - 127).max() < 10  # without a filter: black and white, or all of one


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_exif_orientation_is_undone(orientation: int, kind: str) -> None:
    upright = Image.new("RGB", (160, 120), (0, 0, 0))
    upright.paste((255, 0, 0), (0, 0, 80, 60))
    upright.paste((0, 255, 0), (80, 0, 160, 60))
    upright.paste((0, 0, 255), (0, 60, 80, 120))
    turn = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
            7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip  # what turns upright pixels into stored ones
    stored = upright.transpose(Image.Transpose[turn[orientation]]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = read(encode(stored, kind, exif=exif)).astype(int)
    corners = [result[12, 15], result[12, 65], result[48, 15], result[48, 65]]
    expected = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)]
    assert np.abs(np.array(corners) - expected).max() <= 12


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "JPEG"),
     ("RGB", "BMP"), ("RGB", "WEBP")],
)  # fmt: skip
def test_colour_modes_keep_their_colour(mode: str, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    result = read(encode(Image.new("RGB", (64, 48), COLOUR).convert(mode), kind, **options))
    assert np.abs(result.astype(int) - COLOUR).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF"])
def test_a_palette_is_looked_up(kind: str) -> None:
    image = Image.new("RGB", (64, 48), COLOUR)
    image.paste((10, 20, 30), (32, 0, 64, 48))
    result = read(encode(image.quantize(2), kind))
    assert (result[:, :35] == COLOUR).all() and (result[:, -35:] == (10, 20, 30)).all()


def test_an_alpha_channel_hides_nothing() -> None:
    """Transparency is dropped, not blended with a background that was never photographed."""
    assert (read(encode(Image.new("RGBA", (64, 48), (*COLOUR, 0)))) == COLOUR).all()


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_becomes_three_equal_channels(mode: str) -> None:
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1)))
    result = read(encode(ramp.convert(mode)))
    assert (result[..., 0] == result[..., 1]).all() and (result[..., 1] == result[..., 2]).all()
    assert result[:, :5].mean() < 60 and result[:, -5:].mean() > 195


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_range_and_orientation(kind: str) -> None:
    ramp = Image.fromarray(np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (48, 1)))
    assert ramp.mode == "I;16"
    expected = np.linspace(0, 255, WIDTH)
    exif = Image.Exif()
    for orientation in (1, 3):
        exif[0x0112] = orientation
        result = read(encode(ramp, kind, exif=exif)).astype(float)
        assert np.abs(result.mean((0, 2))[:: 2 - orientation] - expected).max() < 5


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_grey_of_unknown_range_is_refused(kind: type) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(grey values of unknown range, .*\); replace the file"):
        read(encode(Image.fromarray(np.full((48, 64), 900, kind)), "TIFF"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of the tags
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_faulty_exif_is_no_reason_to_refuse_a_picture(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    stored, image = exif.tobytes(), Image.new("RGB", (64, 48), COLOUR)
    random = np.random.default_rng(0)
    for size in range(6, len(stored)):  # cut short, and with a few bytes that mean something else
        torn = bytearray(stored)
        torn[random.integers(6, len(torn))] = random.integers(256)
        for blob in (stored[:size], bytes(torn)):
            assert read(encode(image, kind, exif=blob)).shape == (HEIGHT, WIDTH, 3)


def test_a_turned_jpeg_is_as_sharp_as_a_turned_png() -> None:
    checks = (np.indices((120, 160)).sum(0) // 8 % 2 * 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.stack([checks] * 3, axis=2))
    jpeg, png = (read(encode(image, kind, exif=exif)).astype(float) for kind in ("JPEG", "PNG"))
    assert jpeg.std() > 0.9 * png.std()


def test_a_placeholder_is_no_image() -> None:
    assert (read(encode(Image.new("RGB", (16, 16), COLOUR))) == COLOUR).all()
    with pytest.raises(UserError, match="image image is 300 × 15 pixels, which shows nothing; replace the file"):
        read(encode(Image.new("RGB", (300, 15), COLOUR)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_path_and_its_bytes_give_the_same(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (301, 397, 3)).astype(np.uint8)
    content = encode(Image.fromarray(noise), kind)
    path = tmp_path / "image"
    path.write_bytes(content)
    from_bytes = read(content)
    assert (pixels.read(path, "a", HEIGHT, WIDTH) == from_bytes).all()
    assert (pixels.read(str(path), "a", HEIGHT, WIDTH) == from_bytes).all()


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff\xe0 no more", b"\x89PNG\r\n\x1a\n" + b"0" * 50])
def test_what_is_no_image_is_named(content: bytes) -> None:
    with pytest.raises(UserError, match=r"^image lesion\.jpg cannot be read \(.+\); replace the file$"):
        pixels.read(content, "lesion.jpg", HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_half_an_image_is_refused_not_padded(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    content = encode(Image.fromarray(noise), kind)
    with pytest.raises(UserError, match="image half cannot be read"):
        pixels.read(content[: len(content) // 2], "half", HEIGHT, WIDTH)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"image no\.jpg does not exist"):
        pixels.read(tmp_path / "no.jpg", "no.jpg", HEIGHT, WIDTH)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "LARGEST", 1000)
    for side in (36, 100):  # a little beyond, where Pillow only warns; far beyond, where it refuses
        with pytest.raises(UserError, match="has more than 1,000 pixels"):
            read(encode(Image.new("RGB", (side, side))))
    assert read(encode(Image.new("RGB", (31, 31)))).shape == (HEIGHT, WIDTH, 3)


def skin() -> np.ndarray:
    """Colours of skin and lesions, all inside every colour space: (60, 80, 3) uint8."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([90 + 2 * columns, 60 + columns + rows, 50 + 2 * rows], axis=2).clip(40, 230).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("name", profiles.SPACES)
def test_the_same_colours_in_another_space_are_the_same_pixels(name: str, kind: str) -> None:
    space, wanted = profiles.SPACES[name], skin()
    options = {"PNG": {}, "TIFF": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}[kind]
    stored = Image.fromarray(profiles.stored_in(space, wanted))
    files = [encode(stored, kind, icc_profile=said, **options) for said in (None, profiles.icc(space))]
    unsaid, said = (np.abs(read(file).astype(int) - wanted) for file in files)
    assert unsaid.max() > 10  # so much would go wrong
    assert said.max() <= 8 and said.mean() < 1  # eight bits of a wide space are coarse in the dark; JPEG rounds too


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_pictures_that_say_srgb_keep_their_bits(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    image = Image.fromarray(noise).convert(mode)
    for said in (profiles.icc(profiles.SRGB), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()):
        assert (read(encode(image, icc_profile=said)) == read(encode(image))).all()


def test_colours_are_converted_before_a_picture_is_turned_and_with_alpha() -> None:
    """Turning and making it RGB lose what Pillow knows of a file, the profile too."""
    space, exif = profiles.SPACES["ProPhoto"], Image.Exif()
    exif[0x0112] = 3
    stored = Image.fromarray(profiles.stored_in(space, skin()[::-1, ::-1])).convert("RGBA")
    gap = np.abs(read(encode(stored, exif=exif, icc_profile=profiles.icc(space))).astype(int) - skin())
    assert gap.max() <= 5


def test_a_profile_that_is_damaged_or_of_other_pixels_is_ignored() -> None:
    whole, grey = profiles.icc(profiles.SPACES["ProPhoto"]), Image.fromarray(skin()).convert("L")
    image = Image.fromarray(skin())
    for said in (whole[:100], b"no profile", whole.replace(b"RGB ", b"GRAY", 1), whole[:-3000]):
        assert (read(encode(image, icc_profile=said)) == skin()).all()
    assert (read(encode(grey, icc_profile=whole)) == read(encode(grey))).all()
