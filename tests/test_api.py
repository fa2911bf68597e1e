"""``from dermdistill import Detector``: every form of a picture, lesions, and what cannot be judged."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from deployment.test_runtime import tiny_model
from helpers import REPOSITORY, environment
from PIL import Image

import dermdistill
from dermdistill import Answer, Detector
from dermdistill.core.classes import CLASSES
from dermdistill.core.files import sha256
from dermdistill.deployment import runtime
from dermdistill.errors import UserError

THRESHOLDS = json.dumps({"sensitivity": 0.4, "youden": 0.6})
RULES = {
    "conformal": {"coverage": 0.9, "marginal": 0.8, "class_conditional": dict.fromkeys(CLASSES, 0.9)},
    "keep": {"0.9": 0.2},
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    texts = {"thresholds": THRESHOLDS, "selective": json.dumps(RULES), "id": "int8_tiny_s0"}
    return tiny_model(tmp_path / "model.onnx", **texts)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_every_form_of_a_picture_gives_the_same_answer(model: Path, photo: Path) -> None:
    detector = Detector.load(model)
    pixels = np.asarray(Image.open(photo))
    expected = runtime.Detector(model).predict_files([photo])[0]
    for form in (photo, str(photo), photo.read_bytes(), Image.open(photo), pixels):
        answer = detector.predict(form)
        assert answer.probabilities is not None and list(answer.probabilities) == list(CLASSES)
        assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)
        assert answer.melanoma == answer.probabilities["mel"] and answer.outcome in ("answer", "doubt")
        assert answer.image == (str(photo) if isinstance(form, str | Path) else "")
    assert [one.melanoma for one in detector.predict(np.stack([pixels, pixels]))] == pytest.approx([expected[1]] * 2)


def test_a_picture_that_is_passed_in_stays_as_it_is(model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (640, 480), (150, 90, 80)).save(tmp_path / "large.jpg")
    with Image.open(tmp_path / "large.jpg") as opened:
        Detector.load(model).predict(opened)
        assert opened.size == (640, 480) and opened.getpixel((5, 5)) == pytest.approx((150, 90, 80), abs=3)


def test_an_answer_tells_decision_doubt_quality_and_model(model: Path, photo: Path) -> None:
    answer = Detector.load(model).predict(photo)
    p = np.array(list((answer.probabilities or {}).values()))
    assert answer.decision == ("refer" if p[1] >= 0.4 else "no alarm") and answer.threshold == 0.4
    assert answer.conformal_set == [name for name, one in zip(CLASSES, p, strict=True) if one >= 0.1]
    assert answer.deferred is False and set(answer.quality or {}) >= {"brightness", "sharpness"}
    assert (answer.model, answer.model_sha256) == ("int8_tiny_s0", sha256(model)[:8])
    assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict()
    own = Detector.load(model, threshold=min(float(p[1]) + 0.01, 0.99)).predict(photo)
    assert own.operating_point == "your own" and own.decision == "no alarm"


def test_what_cannot_be_read_is_an_answer_and_never_no_alarm(model: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    pictures = [tmp_path / "bad.jpg", photo, tmp_path / "none.jpg", tmp_path / "small.png", b""]
    bad, good, absent, small, empty = Detector.load(model).predict(pictures)
    assert good == Detector.load(model).predict(photo)
    for answer, reason in ((bad, "cannot be read"), (absent, "does not exist"), (small, "8 × 8"), (empty, "given")):
        assert answer.outcome == answer.decision == "cannot judge" and reason in answer.reasons[0]
        assert answer.melanoma is answer.probabilities is answer.conformal_set is None
    assert Detector.load(model).predict([]) == []


def test_several_pictures_of_a_lesion_become_one_answer(model: Path, photo: Path, tmp_path: Path) -> None:
    detector = Detector.load(model)
    other = np.full((30, 40, 3), (220, 10, 90), np.uint8)
    single = [one.melanoma for one in detector.predict([photo, other])]
    lesion = detector.predict_lesion([photo, other])
    assert lesion.melanoma == pytest.approx(np.mean(single), abs=1e-6) and abs(np.subtract(*single)) > 0.01
    partly = detector.predict_lesion([photo, tmp_path / "none.jpg"])
    assert partly.outcome == "doubt" and "none.jpg does not exist" in partly.reasons[0]
    assert partly.melanoma == pytest.approx(single[0]) and partly.image == ""
    assert detector.predict_lesion([tmp_path / "none.jpg"]).decision == "cannot judge"
    with pytest.raises(UserError, match="one picture at least"):
        detector.predict_lesion([])


@pytest.mark.parametrize(
    "wrong", [np.zeros((9, 9), np.uint8), np.zeros((30, 30, 3)), np.zeros((0, 30, 3), np.uint8), 7]
)
def test_what_is_no_picture_is_a_mistake_of_the_program(model: Path, wrong: object) -> None:
    with pytest.raises(UserError, match=r"uint8 RGB|is a path"):
        Detector.load(model).predict([wrong])  # type: ignore[list-item]


def test_a_stream_reads_no_further_than_a_batch(model: Path) -> None:
    taken = 0

    def pictures() -> Iterator[np.ndarray]:
        nonlocal taken
        for shade in range(200):
            taken += 1
            yield np.full((20, 30, 3), shade, np.uint8)

    stream = Detector.load(model).stream(pictures())
    first = next(stream)
    assert isinstance(first, Answer) and taken == runtime.BATCH
    assert len(list(stream)) == 199


def test_thresholds_that_are_not_there_are_refused(model: Path, tmp_path: Path) -> None:
    assert Detector.load(model, operating_point="youden").threshold == 0.6
    with pytest.raises(UserError, match="no operating point f1 \\(it has: sensitivity, youden\\)"):
        Detector.load(model, operating_point="f1")
    with pytest.raises(UserError, match="use a deployed one"):
        Detector.load(tiny_model(tmp_path / "raw.onnx"))
    with pytest.raises(UserError, match=r"between 0 and 1, not 1\.5"):
        Detector.load(model, threshold=1.5)


def test_without_a_name_it_is_the_deployed_model() -> None:
    assert Detector.load().path == REPOSITORY / "models/deploy/student.int8.onnx"


def test_importing_the_package_brings_nothing_along() -> None:
    code = "import sys, dermdistill; print({'numpy', 'onnxruntime', 'PIL'} & set(sys.modules), dermdistill.__version__)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", dermdistill.__version__]
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = dermdistill.Nonsense
