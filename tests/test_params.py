"""params.yaml: the committed file loads, nothing has a default, and every mistake is one sentence that names it."""

import copy
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import REPOSITORY, change_params, shrunk_params, write_params
from pydantic import BaseModel

from dermdistill import params
from dermdistill.errors import UserError


def blocks(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The model and every block inside it, by class name."""
    found = {model.__name__: model}
    for field in model.model_fields.values():
        waiting = [field.annotation]
        while waiting:
            kind = waiting.pop()
            waiting += typing.get_args(kind)
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= blocks(kind)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_params(tmp_path, shrunk_params())
    return tmp_path


def sentence(folder: Path, changes: dict[str, Any]) -> str:
    change_params(folder, changes)
    with pytest.raises(UserError) as caught:
        params.load(folder / "params.yaml")
    text = str(caught.value)
    assert "\n" not in text and "pydantic" not in text
    return text


def test_the_committed_file_loads_and_describes_what_it_names() -> None:
    path = REPOSITORY / "params.yaml"
    loaded = params.load(path)
    assert loaded.model_dump() == yaml.safe_load(path.read_text(encoding="utf-8"))
    assert f"int8_{loaded.ship.student}_s{loaded.ship.seed}" == loaded.shipped
    assert loaded.shipped in loaded.model_ids()


def test_no_parameter_has_a_default() -> None:
    found = blocks(params.Params)
    assert {"Augment", "Cut", "Teacher", "Model", "Run", "AnalyzeErrors"} <= set(found)
    fields = {f"{name}.{k}": field for name, block in found.items() for k, field in block.model_fields.items()}
    optional = [name for name, field in fields.items() if not field.is_required()]
    assert optional == []


def test_every_parameter_may_not_be_left_out(folder: Path) -> None:
    content = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    for block in params.Params.model_fields:
        shorter = copy.deepcopy(content)
        del shorter[block]
        write_params(folder, shorter)
        with pytest.raises(UserError, match=f"parameter {block} is missing"):
            params.load(folder / "params.yaml")
    del content["train"]["augment"]["rotate"]
    write_params(folder, content)
    with pytest.raises(UserError, match=r"parameter train\.augment\.rotate is missing"):
        params.load(folder / "params.yaml")


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("kd.temprature", "temperature"),
        ("train.augment.rotat", "rotate"),
        ("teachers.small.epoch", "epochs"),
        ("students.smaller.dropuot", "dropout"),
        ("qantize", "quantize"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest_known_one(folder: Path, name: str, suggestion: str) -> None:
    text = sentence(folder, {name: 1})
    assert f"unknown parameter {name} (did you mean {suggestion}?)" in text


def test_an_unknown_name_like_none_known_is_refused_without_a_guess(folder: Path) -> None:
    text = sentence(folder, {"kd.zzz": 1})
    assert text.endswith("unknown parameter kd.zzz")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("kd.alpha", 1.01, "less than or equal to 1, not 1.01"),
        ("kd.alpha", -0.5, "greater than or equal to 0, not -0.5"),
        ("kd.alpha", float("nan"), "not nan"),
        ("kd.temperature", 0, "greater than 0, not 0"),
        ("train.batch_size", "many", "not 'many'"),
        ("train.batch_size", 1, "greater than or equal to 2"),
        ("train.batch_size", 2.5, "not 2.5"),
        ("train.class_weights", "cubed", "not 'cubed'"),
        ("teachers.small.lr", "fast", "not 'fast'"),
        ("data.height", 31, "not 31"),
        ("run.seeds", [], "at least 1 item"),
        ("run.seeds", [-1], "not -1"),
        ("run.seeds", [0, 1, 0], "names one twice: 0, 1, 0"),
        ("run.students", ["smaller", "smaller"], "names one twice"),
        ("kd.teachers", ["small", "small"], "names one twice"),
        ("split.val", 0, "not 0"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_named_with_what_was_given(
    folder: Path, name: str, value: object, says: str
) -> None:
    text = sentence(folder, {name: value})
    assert f"{name}" in text and says in text


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("run.teachers", ["big"], "run.teachers names 'big', which is not in teachers (small)"),
        ("run.students", ["huge"], "run.students names 'huge', which is not in students (smaller)"),
        ("kd.teachers", ["small", "big"], "kd.teachers names 'big', which is not in run.teachers (small)"),
        ("ship.student", "huge", "ship.student names 'huge', which is not in run.students (smaller)"),
        ("ship.seed", 3, "ship.seed 3 is not one of run.seeds [0]"),
    ],
)
def test_a_name_that_points_nowhere_is_refused(folder: Path, name: str, value: object, says: str) -> None:
    assert says in sentence(folder, {name: value})


def test_a_described_teacher_outside_the_run_cannot_teach(folder: Path) -> None:
    change_params(folder, {"teachers.idle": shrunk_params()["teachers"]["small"]})
    assert "which is not in run.teachers" in sentence(folder, {"kd.teachers": ["idle"]})


def test_val_and_holdout_must_leave_something_to_train_on(folder: Path) -> None:
    text = sentence(folder, {"split.val": 0.5, "split.holdout": 0.5})
    assert "split: val and holdout together must stay below 1" in text


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    text = sentence(folder, {"kd.alpha": 2, "data.heigth": 5})
    assert "kd.alpha" in text and "data.heigth (did you mean height?)" in text


@pytest.mark.parametrize(
    ("content", "says"), [("a: [1", "not valid YAML"), ("", "valid dictionary"), ("- 1", "valid dictionary")]
)
def test_a_file_that_is_no_parameter_file_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "params.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=says) as caught:
        params.load(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


def test_an_absent_file_says_where_to_stand(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run from the top folder of the repository"):
        params.load(tmp_path / "params.yaml")


def test_loaded_parameters_cannot_be_changed() -> None:
    loaded = params.load(REPOSITORY / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        loaded.kd.alpha = 0.1


def test_model_ids_stand_in_the_order_of_the_story(folder: Path) -> None:
    content = shrunk_params()
    teacher, student = content["teachers"]["small"], content["students"]["smaller"]
    change_params(folder, {"teachers.big": teacher, "students.b": student, "run.teachers": ["small", "big"],
                           "run.students": ["smaller", "b"], "run.seeds": [3, 0]})  # fmt: skip
    assert params.load(folder / "params.yaml").model_ids() == [
        "teacher_small", "teacher_big",
        "student_smaller_s3", "student_smaller_s0", "student_b_s3", "student_b_s0",
        "control_smaller_s3", "control_smaller_s0", "control_b_s3", "control_b_s0",
        "int8_smaller_s3", "int8_smaller_s0", "int8_b_s3", "int8_b_s0",
    ]  # fmt: skip


def test_what_confirms_duplicates_is_one_of_four_and_named_once(folder: Path) -> None:
    text = sentence(folder, {"audit.confirmed_by": ["geometry", "hash"]})
    assert "audit.confirmed_by.1: input should be 'geometry', 'pixels', 'eye' or 'published', not 'hash'" in text
    assert "names one twice: eye, eye" in sentence(folder, {"audit.confirmed_by": ["eye", "eye"]})
    assert "audit.confirmed_by" in sentence(folder, {"audit.confirmed_by": []})
