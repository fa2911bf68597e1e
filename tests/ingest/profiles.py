"""ICC profiles of wide colour spaces, built from their published primaries, and pictures stored in them.

Sources: ICC.1:2022 (the file); SMPTE EG 432-1 and Apple's white point D65 (Display P3); Adobe RGB (1998) Color Image
Encoding; ISO 22028-2 (ROMM RGB, called ProPhoto); Lindbloom, "Chromatic Adaptation" (Bradford).
"""

import struct
from dataclasses import dataclass

import numpy as np

D50, D65 = (0.3457, 0.3585), (0.3127, 0.3290)  # chromaticities of the white
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True)
class Space:
    """Primaries (x, y) of red, green and blue, those of the white, and the exponent; 0 is the curve of sRGB."""

    primaries: tuple[tuple[float, float], ...]
    white: tuple[float, float]
    gamma: float

    def to_xyz(self) -> np.ndarray:
        """(3, 3): linear red, green and blue to XYZ with white D50."""
        columns = np.stack([_xyz(point) for point in self.primaries], axis=1)
        matrix = columns * np.linalg.solve(columns, _xyz(self.white))
        cone = (BRADFORD @ _xyz(D50)) / (BRADFORD @ _xyz(self.white))
        return np.linalg.inv(BRADFORD) @ np.diag(cone) @ BRADFORD @ matrix

    def linear(self, stored: np.ndarray) -> np.ndarray:
        """Stored values 0 to 1 as light."""
        if self.gamma:
            return stored**self.gamma
        return np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)

    def stored(self, light: np.ndarray) -> np.ndarray:
        """Light 0 to 1 as stored values."""
        if self.gamma:
            return light ** (1 / self.gamma)
        return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


SRGB = Space(((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), D65, 0)
SPACES = {
    "Display P3": Space(((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), D65, 0),
    "Adobe RGB": Space(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), D65, 563 / 256),
    "ProPhoto": Space(((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), D50, 1.8),
}


def _xyz(point: tuple[float, float]) -> np.ndarray:
    x, y = point
    return np.array([x / y, 1, (1 - x - y) / y])


def stored_in(space: Space, srgb: np.ndarray) -> np.ndarray:
    """The colours of ``srgb`` (H, W, 3) uint8 in the numbers of ``space``, uint8."""
    light = SRGB.linear(srgb / 255) @ (np.linalg.inv(space.to_xyz()) @ SRGB.to_xyz()).T
    return (255 * space.stored(light.clip(0, 1))).round().astype(np.uint8)


def icc(space: Space) -> bytes:
    """A version 2 matrix profile."""
    curve = (65535 * space.linear(np.linspace(0, 1, 1024))).round().astype(">u2")
    trc = b"curv" + bytes(4) + struct.pack(">I", len(curve)) + curve.tobytes()
    named = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)
    content = {b"desc": named, b"cprt": b"text" + bytes(4) + b"none\0\0\0\0", b"wtpt": _tag(_xyz(D50))}
    content |= {key: _tag(column) for key, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), space.to_xyz().T, strict=True)}
    content |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), trc)
    directory, body, start = b"", b"", 128 + 4 + 12 * len(content)
    for key, data in content.items():
        padded = data + bytes(-len(data) % 4)
        directory += key + struct.pack(">II", start + len(body), len(data))
        body += padded
    head = struct.pack(">I4sI4s4s4s12s4s28s", start + len(body), b"test", 0x02400000, b"mntr", b"RGB ", b"XYZ ",
                       struct.pack(">6H", 2026, 1, 1, 0, 0, 0), b"acsp", bytes(28))  # fmt: skip
    head += struct.pack(">3i", *(round(65536 * value) for value in _xyz(D50)))
    return head.ljust(128, b"\0") + struct.pack(">I", len(content)) + directory + body


def _tag(xyz: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65536 * value) for value in xyz))
