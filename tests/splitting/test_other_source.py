"""The halves of the second source: fixed for ever, alike in size, and never two photographs of one lesion apart."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermdistill.splitting.other_source import lesion_of, part_of


@pytest.mark.parametrize(
    ("image_id", "part"),
    [
        ("A1l_Aal002", "other_test"),
        ("A1l_Aal002bis", "other_test"),
        ("image_0", "other_test"),
        ("image_1", "other_val"),
    ],
)
def test_a_half_never_changes(image_id: str, part: str) -> None:
    assert part_of(image_id) == part


@given(st.text())
def test_the_hash_as_a_number_decides(image_id: str) -> None:
    odd = int(hashlib.sha256(lesion_of(image_id).encode()).hexdigest(), 16) % 2
    assert part_of(image_id) == ("other_test" if odd else "other_val")


@given(st.text().filter(lambda text: not text.endswith("bis")))
def test_a_second_photograph_stays_with_the_first(image_id: str) -> None:
    assert lesion_of(f"{image_id}bis") == image_id
    assert part_of(f"{image_id}bis") == part_of(image_id)


def test_the_halves_are_halves() -> None:
    parts = [part_of(f"image_{i}") for i in range(2000)]
    assert 0.45 < parts.count("other_val") / len(parts) < 0.55
