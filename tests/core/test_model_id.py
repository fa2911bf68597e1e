"""Model ids: read and written in one place, the one the inverse of the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermdistill.core.model_id import KINDS, SEEDED, ModelId

NAMES = st.from_regex(r"[a-z0-9_]+", fullmatch=True)


@given(st.sampled_from(KINDS), NAMES, st.integers(0, 2**32 - 1))
def test_what_is_written_is_read_back(kind: str, name: str, seed: int) -> None:
    model_id = ModelId(kind, name, seed if kind in SEEDED else None)
    assert ModelId.parse(str(model_id)) == model_id


def test_a_role_and_a_family() -> None:
    student = ModelId.parse("student_tiny_s12")
    assert student == ModelId("student", "tiny", 12) and student.family == "student_tiny"
    assert str(student.of_kind("int8")) == "int8_tiny_s12"
    assert ModelId.parse("student_a_s1_s2") == ModelId("student", "a_s1", 2)
    assert ModelId.parse("teacher_net_s1") == ModelId("teacher", "net_s1")  # a teacher has no seed in its name


@pytest.mark.parametrize("text", ["", "student", "student_", "student_tiny", "student_tiny_s", "pupil_tiny_s0"])
def test_what_is_no_model_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no model id"):
        ModelId.parse(text)
