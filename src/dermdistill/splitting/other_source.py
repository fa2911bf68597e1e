"""The second source, Derm7pt, in two fixed halves.

``other_val`` may guide a person's choice of recipe, ``other_test`` only judges. No stage reads either. A hash of the
lesion's id decides, so that no list, seed or table is needed and no image ever changes sides.

Deliberately absent: stratification by diagnosis. It would need the labels of the half that only judges.
"""

import hashlib

AGAIN = "bis"  # ends the id of a second photograph of a lesion


def lesion_of(image_id: str) -> str:
    """The id that all photographs of a lesion share: ``A1l_Aal002bis`` shows the lesion of ``A1l_Aal002``."""
    return image_id.removesuffix(AGAIN)


def part_of(image_id: str) -> str:
    """``other_val`` or ``other_test``: whether the SHA-256 of the lesion's id, as a number, is even or odd."""
    return ("other_val", "other_test")[hashlib.sha256(lesion_of(image_id).encode()).digest()[-1] % 2]
