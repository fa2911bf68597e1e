"""Paints the phantom's lesions: shape, pigments, structures, and the skin around them.

Colour follows the Beer-Lambert law. Every layer is a density of an absorber (melanin, blood, or melanin deep in the
dermis, which looks blue), so that overlapping layers mix as they do in skin.

The classes overlap on purpose. One function paints all of them, each from its row of strengths (``_RECIPES``). Every
strength varies at random, and a share of the lesions leans towards a look-alike (``_MIMICS``), one in eight almost
wholly: a nevus towards melanoma, a melanoma towards a nevus or a keratosis. The strengths were tuned until a small
pretrained network separated melanoma well but not perfectly (AUC about 0.9 at 700 lesions), so an AUC on phantoms is a
setting, not a result.

Deliberately absent: age or body site in the drawing, other skin types, anything calibrated against real images.

Source of the structures of each diagnosis: Tschandl et al., Sci. Data 5:180161 (2018), and the usual dermoscopic
criteria (pigment network, blue-white veil, milia-like cysts, arborising vessels, …).
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dermdistill.phantom.camera import to_bytes

_SPAN = 1.0  # the tissue reaches this many image heights from the lesion's centre: room to turn a 4:3 frame
_ABSORPTION = {  # per unit of density, for red, green, blue light
    "melanin": (0.48, 0.92, 1.35),
    "blood": (0.10, 0.95, 0.70),
    "deep": (1.25, 0.90, 0.55),
}
_WHITE = (0.93, 0.87, 0.87)  # fibrous tissue and scale
_KERATIN = (0.90, 0.78, 0.58)

_STRENGTHS = ("size", "ragged", "soft", "melanin", "mottle", "lopsided", "network", "globules",
              "veil", "blood", "vessels", "nests", "cysts", "scale", "lacunae", "scar", "sun")  # fmt: skip
_RECIPES = {
    #        size ragg soft mela mott lops netw glob veil bloo vess nest cyst scal lacu scar sun
    "nv":    (.27, .12, .45, 1.1, .30, .20, .50, .35, .00, .15, .00, .00, .00, .00, .00, .00, .15),
    "mel":   (.33, .32, .30, 1.2, .70, .80, .60, .50, .80, .20, .10, .00, .05, .00, .00, .10, .40),
    "bkl":   (.33, .38, .12, .70, .60, .35, .15, .10, .05, .06, .05, .00, .90, .20, .00, .00, .50),
    "bcc":   (.27, .25, .50, .22, .45, .40, .00, .05, .10, .35, 1.0, .90, .00, .20, .00, .15, .50),
    "akiec": (.33, .50, .70, .35, .70, .40, .00, .00, .00, .35, .10, .00, .05, 1.0, .00, .00, .90),
    "vasc":  (.19, .25, .12, .08, .10, .10, .00, .00, .10, .45, .00, .00, .00, .00, 1.0, .00, .10),
    "df":    (.25, .15, .90, .50, .20, .15, .35, .00, .00, .25, .05, .00, .00, .10, .00, 1.0, .15),
}  # fmt: skip
_MIMICS = {"nv": ("mel", "bkl", "df"), "mel": ("nv", "nv", "bkl"), "bkl": ("mel", "nv", "akiec"),
           "bcc": ("akiec", "mel", "vasc"), "akiec": ("bcc", "bkl"), "vasc": ("bcc", "mel"),
           "df": ("nv", "bcc")}  # fmt: skip


@dataclass
class _Patch:
    """The skin being painted: its random stream, its strengths, and the place of each pixel."""

    rng: np.random.Generator
    s: dict[str, float]
    x: np.ndarray  # (side, side), image heights from the lesion's centre
    y: np.ndarray

    @property
    def side(self) -> int:
        return int(self.x.shape[0])

    def noise(self, cells: int) -> np.ndarray:
        """Smooth noise of about unit scale, ``cells`` bumps across whatever the resolution; (side, side)."""
        grid = Image.fromarray(self.rng.standard_normal((cells, cells)).astype(np.float32))
        return np.asarray(grid.resize((self.side, self.side), Image.Resampling.BICUBIC))


def paint(rng: np.random.Generator, dx: str, height: int) -> np.ndarray:
    """A new lesion of diagnosis ``dx`` and the skin around it, without hairs or lens.

    Returns:
        (side, side, 3) uint8 RGB, side = twice the height, the lesion in the middle.
    """
    axis = np.linspace(-_SPAN, _SPAN, round(2 * _SPAN * height), dtype=np.float32)
    patch = _Patch(rng, _strengths(rng, dx), *np.meshgrid(axis, axis))
    depth = _depth(patch)
    mask = 1 / (1 + np.exp(-np.clip(depth / (0.03 + 0.25 * patch.s["soft"]), -30, 30)))
    density = _skin(patch)
    _pigment(patch, depth, mask, density)
    _structures(patch, mask, density)
    planes = []
    for channel, surface in enumerate((1.0, 0.95, 0.93)):
        absorbed = sum(rates[channel] * density[name] for name, rates in _ABSORPTION.items())
        planes.append(surface * np.exp(-absorbed))
    _whiten(patch, depth, mask, planes)
    return to_bytes(np.stack(planes, axis=-1))


def _strengths(rng: np.random.Generator, dx: str) -> dict[str, float]:
    """The recipe of ``dx``, mixed with that of a look-alike; every strength varies and some structures are missing."""
    lean = rng.beta(0.6, 1.9) if rng.random() > 0.12 else rng.uniform(0.7, 1)  # some deceive any eye
    look_alike = rng.choice(_MIMICS[dx])
    mean = (1 - lean) * np.array(_RECIPES[dx]) + lean * np.array(_RECIPES[look_alike])
    value = mean * rng.uniform(0.5, 1.4, mean.size) + np.abs(rng.normal(0, 0.03, mean.size))
    s = dict(zip(_STRENGTHS, value.tolist(), strict=True))
    for name in _STRENGTHS[6:]:
        s[name] *= rng.random() > 0.15
    s["size"] = float(np.clip(mean[0] * rng.lognormal(0, 0.25), 0.1, 0.48))
    s["melanin"] = float(mean[3] * rng.lognormal(0, 0.4))
    return s


def _depth(patch: _Patch) -> np.ndarray:
    """Depth inside the border (side, side): 1 at the centre, 0 at the border of a few Fourier harmonics and noise."""
    rng, s = patch.rng, patch.s
    angle = np.arctan2(patch.y, patch.x)
    border = np.ones_like(angle)
    for k in range(2, 8):
        amplitude = (0.25 + s["ragged"]) * rng.normal() / k**1.5
        border += amplitude * np.cos(k * angle + rng.uniform(0, 2 * math.pi))
    fine = 0.5 * patch.noise(24) + 0.35 * patch.noise(60)
    depth: np.ndarray = 1 - np.hypot(patch.x, patch.y) / (s["size"] * np.maximum(border, 0.25))
    return depth + 0.45 * s["ragged"] * fine


def _skin(patch: _Patch) -> dict[str, np.ndarray]:
    """Absorbers of healthy skin: its tone, fine texture, and sun damage (mottling, thin vessels)."""
    rng, sun = patch.rng, patch.s["sun"]
    blotch, grain = patch.noise(14), patch.noise(90)
    furrow = np.abs(patch.noise(40))
    melanin = rng.uniform(0.03, 0.20) + 0.015 * grain - 0.02 * furrow
    blood = rng.uniform(0.10, 0.45) + 0.02 * patch.noise(8) + 0.012 * grain
    melanin = melanin + 0.10 * sun * np.clip(blotch + 0.6 * patch.noise(36) - 0.3, 0, 2)
    blood = blood + 0.07 * sun * np.clip(patch.noise(10), 0, 2)
    if sun > 0.3:
        blood += 0.3 * sun * _vessels(rng, patch.side, count=3, reach=0.9, width=0.008)
    deep = np.full_like(patch.x, rng.uniform(0, 0.18))
    return {"melanin": melanin, "blood": blood, "deep": deep}


def _pigment(patch: _Patch, depth: np.ndarray, mask: np.ndarray, density: dict[str, np.ndarray]) -> None:
    """Add the lesion's own colour: flat pigment, mottling, a darker side, network, veil."""
    rng, s, x, y = patch.rng, patch.s, patch.x, patch.y
    turn = rng.uniform(0, 2 * math.pi)
    across = (math.cos(turn) * x + math.sin(turn) * y) / s["size"]  # from -1 to 1 through the lesion
    uneven = 1 + s["mottle"] * (0.55 * patch.noise(9) + 0.4 * patch.noise(24))
    uneven += 0.18 * patch.noise(50) + 0.12 * patch.noise(110)
    uneven += 0.9 * s["lopsided"] * across * np.exp(-(across**2) / 4)
    flat = np.clip(uneven + 0.5 * np.clip(depth, 0, 1) * (0.4 + s["soft"]), 0.1, 3)
    if s["network"] > 0.1:
        lines = _honeycomb(patch, rng.uniform(0.030, 0.045), 0.3 + s["ragged"] + 0.2 * s["lopsided"])
        patchy = np.clip(0.7 + (0.5 + s["mottle"]) * patch.noise(10), 0, 2)
        flat = flat * (1 + 0.55 * s["network"] * (lines - 0.4) * patchy)
    density["melanin"] += s["melanin"] * mask * flat
    density["blood"] += s["blood"] * mask * np.clip(1 + 0.5 * patch.noise(10), 0, 3)
    centre = s["size"] * rng.uniform(0.1, 0.6) * np.array((math.cos(turn), math.sin(turn)))
    cloud = 1 - np.hypot(x - centre[0], y - centre[1]) / (0.6 * s["size"]) + 0.35 * patch.noise(14)
    density["deep"] += 1.1 * s["veil"] * mask * np.clip(cloud * 1.5, 0, 1)


def _structures(patch: _Patch, mask: np.ndarray, density: dict[str, np.ndarray]) -> None:
    """Add what has an edge of its own: globules, blue nests, red lacunae, branching vessels."""
    rng, s, side = patch.rng, patch.s, patch.side
    reach = 0.9 * s["size"]
    globules = _spots(rng, side, round(50 * s["globules"]), reach, (0.006, 0.018))
    density["melanin"] += 0.7 * (0.3 + s["melanin"]) * mask * globules
    nests = mask * _spots(rng, side, round(12 * s["nests"]), reach, (0.015, 0.055), blur=0.008)
    density["deep"] += 0.55 * nests
    density["melanin"] += 0.5 * nests
    lacunae = mask * _spots(rng, side, round(40 * s["lacunae"]), reach, (0.02, 0.05), blur=0.006)
    density["blood"] += 1.0 * s["lacunae"] * lacunae
    density["deep"] += rng.uniform(0, 0.5) * s["lacunae"] * lacunae
    if s["vessels"] > 0.15:
        tree = _vessels(rng, side, count=5, reach=s["size"] * 1.1, width=0.014)
        density["blood"] += 1.0 * min(s["vessels"], 1) * tree


def _whiten(patch: _Patch, depth: np.ndarray, mask: np.ndarray, planes: list[np.ndarray]) -> None:
    """Cover the colour ``planes``, in place, with what scatters light: scar, haze, cysts, scale, follicles."""
    rng, s = patch.rng, patch.s
    haze = 0.25 * s["veil"] * np.clip(patch.noise(12), 0, 1)
    scar = 0.6 * s["scar"] * np.clip((depth - 0.45) * 2 + 0.3 * patch.noise(30), 0, 1)
    cysts = 0.55 * _spots(rng, patch.side, round(26 * s["cysts"]), 0.9 * s["size"], (0.006, 0.016))
    white, keratin = haze + scar, cysts
    if s["scale"] > 0.1:
        holes = (1 - _honeycomb(patch, 0.045, 0.3)) ** 3
        white += 0.35 * s["scale"] * holes * np.clip(0.5 + patch.noise(12), 0, 1)
        keratin += 0.6 * s["scale"] * np.clip(patch.noise(30) + 0.7 * patch.noise(90) - 0.4, 0, 1)
    for cover, tint in ((white, _WHITE), (keratin, _KERATIN)):
        alpha = np.clip(cover, 0, 0.9) * mask
        for plane, value in zip(planes, tint, strict=True):
            plane += alpha * (value - plane)


def _honeycomb(patch: _Patch, pitch: float, warp: float) -> np.ndarray:
    """A hexagonal mesh, 1 on its lines and 0 in its holes: three plane waves 60° apart, bent by noise."""
    bend = pitch * (0.3 + warp)
    u, v = patch.x + bend * patch.noise(26), patch.y + bend * patch.noise(26)
    waves = np.zeros_like(u)
    for angle in patch.rng.uniform(0, math.pi) + np.array((0.0, math.pi / 3, 2 * math.pi / 3)):
        waves += np.cos(2 * math.pi / pitch * (math.cos(angle) * u + math.sin(angle) * v))
    return np.clip((1.6 - waves) / 2.4, 0, 1)  # waves is 3 in a hole's centre, -1.5 at a crossing


def _spots(
    rng: np.random.Generator,
    side: int,
    count: int,
    reach: float,
    radii: tuple[float, float],
    blur: float = 0.004,
) -> np.ndarray:
    """``count`` round spots within ``reach`` of the centre (lengths in image heights); 0 … 1."""
    if count == 0:
        return np.zeros((side, side), np.float32)
    scale = side / (2 * _SPAN)
    canvas = Image.new("L", (2 * side, 2 * side))  # drawn twice as large: Pillow does not antialias
    pen = ImageDraw.Draw(canvas)
    for _ in range(count):
        distance, angle = reach * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
        cx, cy = (side + 2 * scale * distance * f(angle) for f in (math.cos, math.sin))
        rx, ry = 2 * scale * rng.uniform(*radii) * rng.uniform(0.75, 1.25, 2)
        pen.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=int(rng.integers(110, 256)))
    return _soften(canvas, blur * scale)


def _vessels(rng: np.random.Generator, side: int, count: int, reach: float, width: float) -> np.ndarray:
    """``count`` trees that wander inwards and thin out as they branch; 0 … 1."""
    scale = side / _SPAN  # pixels of the doubled canvas per image height
    canvas = Image.new("L", (2 * side, 2 * side))
    pen = ImageDraw.Draw(canvas)
    for _ in range(count):
        start = rng.uniform(0, 2 * math.pi)
        tips = [(reach * math.cos(start), reach * math.sin(start), start + math.pi, width)]
        for _ in range(14):
            grown = []
            for px, py, heading, thick in tips[:8]:
                heading += rng.normal(0, 0.35)
                qx, qy = px + 0.09 * reach * math.cos(heading), py + 0.09 * reach * math.sin(heading)
                ends = [side + scale * c for c in (px, py, qx, qy)]
                pen.line(ends, fill=int(120 + 8000 * min(thick, 0.016)), width=max(1, round(scale * thick)))
                grown.append((qx, qy, heading, thick * 0.93))
                if rng.random() < 0.25:
                    grown.append((qx, qy, heading + rng.choice((-0.8, 0.8)), thick * 0.7))
            tips = grown
    return _soften(canvas, 0.004 * scale / 2)


def _soften(canvas: Image.Image, blur: float) -> np.ndarray:
    """Halve a doubled grey canvas and blur it by so many pixels; (side, side) float32, 0 … 1."""
    return np.asarray(canvas.reduce(2).filter(ImageFilter.GaussianBlur(blur)), np.float32) / 255
