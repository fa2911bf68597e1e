"""The command line on a small hand-made model: answers, formats of labels and images, and refusals."""

import csv
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from deployment.test_runtime import tiny_model
from helpers import environment
from PIL import Image

from dermdistill import cli
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import Split
from dermdistill.deployment.runtime import Detector
from dermdistill.ingest import external_set
from dermdistill.phantom import phantom
from dermdistill.splitting import image_index, overlap

THRESHOLDS = {"sensitivity": 0.4, "youden": 0.6}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model.onnx", thresholds=json.dumps(THRESHOLDS))


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A folder with images of several sizes in subfolders, ``ham.csv`` and ``onehot.csv``."""
    folder, random = tmp_path / "set", np.random.default_rng(0)
    rows = []
    for i in range(40):
        size = [(32, 24), (60, 20), (18, 40)][i % 3]
        name = f"ISIC_{i:07d}"
        path = folder / "images" / f"part{i % 2}" / f"{name}{('.jpg', '.png')[i % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, tuple(random.integers(0, 256, 3).tolist())).save(path)
        rows.append((name, CLASSES[i % 7]))
    random.shuffle(rows)
    write(folder / "ham.csv", [("image_id", "dx"), *rows])
    one_hot = [(name, *(float(dx == each) for each in CLASSES)) for name, dx in rows]
    write(folder / "onehot.csv", [("image", *map(str.upper, CLASSES)), *one_hot])
    return folder


@pytest.fixture(scope="module")
def trained_on_index() -> tuple[np.ndarray, image_index.ImageIndex]:
    image = phantom.draw(np.random.default_rng(7), "mel", 150, 200)
    split = Split(["ISIC_TRAIN"], ["HAM_TRAIN"], np.zeros(1, int), np.zeros(1, int))
    return image, image_index.build(image[None], [split])


@pytest.fixture(autouse=True)
def trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_on_index: tuple[np.ndarray, image_index.ImageIndex]
) -> np.ndarray:
    """The one image that the model is said to have been made with."""
    image, index = trained_on_index
    image_index.write(tmp_path / overlap.INDEX, index)
    monkeypatch.setattr(overlap, "ROOTS", (tmp_path,))
    return image


def write(path: Path, rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def evaluate(model: Path, images: Path, labels: Path, output: Path) -> tuple[bytes, dict]:
    arguments = ["--model", model, "--images", images, "--labels", labels, "--output", output]
    cli.main(["evaluate", *map(str, arguments)])
    return (output / "predictions.csv").read_bytes(), json.loads((output / "metrics.json").read_text())


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """``refusal("predict", …)``: the one sentence with which the command ends."""

    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert end.value.code == 1 and said.startswith("error: ")
        return said

    return call


def picture(path: Path, colour: tuple[int, int, int]) -> Path:
    Image.new("RGB", (32, 24), colour).save(path)
    return path


def test_predict_prints_json(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [picture(tmp_path / f"{i}.png", (80 * i, 255 - 100 * i, 40)) for i in range(3)]
    wanted = Detector(model).predict_files(paths)
    for point, threshold in THRESHOLDS.items():
        cli.main(["predict", *map(str, paths), "--model", str(model), "--json", "--operating-point", point])
        answers = json.loads(capsys.readouterr().out)
        assert [a["image"] for a in answers] == [str(path) for path in paths]
        for answer, p in zip(answers, wanted, strict=True):
            assert list(answer["probabilities"]) == list(CLASSES)
            assert answer["melanoma"] == pytest.approx(p[1]) == answer["probabilities"]["mel"]
            assert answer["threshold"] == threshold
            assert answer["decision"] == ("refer" if p[1] >= threshold else "no alarm")


def test_predict_prints_text(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["predict", str(picture(tmp_path / "a.png", (90, 60, 50))), "--model", str(model)])
    said = capsys.readouterr().out
    assert "a.png: melanoma" in said and "Bowen" in said and "Not a medical device" in said


def test_predict_needs_no_training_library(model: Path, tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png", (90, 60, 50))
    code = (
        f"import sys; from dermdistill.cli import main; main(['predict', {str(image)!r}, '--model', {str(model)!r}]);"
        "print('HEAVY', [n for n in ('torch','timm','sklearn','pandas','scipy','onnx') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout


def test_predict_refuses_bad_images_and_models(model: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    (tmp_path / "b.jpg").write_bytes(b"no image")
    assert "b.jpg cannot be read" in refusal("predict", tmp_path / "b.jpg", "--model", model)
    assert "does not exist" in refusal("predict", tmp_path / "none.jpg", "--model", model)
    image = picture(tmp_path / "a.png", (1, 2, 3))
    assert "is damaged or no ONNX model" in refusal("predict", image, "--model", tmp_path / "b.jpg")
    raw = tiny_model(tmp_path / "raw.onnx")
    assert "no operating point" in refusal("predict", image, "--model", raw)


def test_the_shipped_model_is_found_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.deployed().is_absolute() and cli.deployed().match("models/deploy/student.int8.onnx")
    cli.DEPLOYED.parent.mkdir(parents=True)
    cli.DEPLOYED.touch()
    assert cli.deployed() == cli.DEPLOYED


def test_label_tables_and_containers_give_the_same(model: Path, labelled: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in (labelled / "images").rglob("*.*"):
            archive.write(path, f"inner/{path.name}")
        archive.writestr("__MACOSX/._ISIC_0000000.jpg", b"resource fork")
    ham = evaluate(model, labelled / "images", labelled / "ham.csv", tmp_path / "a")
    one_hot = evaluate(model, labelled / "images", labelled / "onehot.csv", tmp_path / "b")
    zipped = evaluate(model, tmp_path / "images.zip", labelled / "ham.csv", tmp_path / "c")
    assert ham == one_hot == zipped


def test_metrics_are_of_the_probabilities_and_stored_thresholds(model: Path, labelled: Path, tmp_path: Path) -> None:
    text, result = evaluate(model, labelled / "images", labelled / "ham.csv", tmp_path / "out")
    assert result["n"] == {"images": 40, "lesions": 40, "melanoma": 6}
    table = list(csv.DictReader(text.decode().splitlines()))
    y_score = np.array([float(row["p_mel"]) for row in table])
    melanoma = np.array([row["dx"] == "mel" for row in table])
    y_pred = y_score >= THRESHOLDS["sensitivity"]
    point = result["operating_points"]["sensitivity"]
    assert point["threshold"] == 0.4 and 0 < y_pred.sum() < 40
    assert point["sensitivity"] == pytest.approx(y_pred[melanoma].mean(), abs=1e-6)
    assert point["specificity"] == pytest.approx(1 - y_pred[~melanoma].mean(), abs=1e-6)
    low, high = result["intervals"]["melanoma.roc_auc"]
    assert low <= result["melanoma"]["roc_auc"] <= high
    assert "raw" not in result  # the file knows calibrated probabilities only


def test_lesions_and_histology_are_used_when_given(model: Path, labelled: Path, tmp_path: Path) -> None:
    with (labelled / "ham.csv").open() as stream:
        rows = list(csv.reader(stream))[1:]
    more = [(n, dx, f"L{int(n[-3:]) // 2}", "histo" if dx == "nv" else "follow_up") for n, dx in rows]
    write(tmp_path / "more.csv", [("image_id", "dx", "lesion_id", "dx_type"), *more])
    _, result = evaluate(model, labelled / "images", tmp_path / "more.csv", tmp_path / "out")
    assert result["n"]["lesions"] == 20 and result["melanoma"]["histology"]["n_benign"] == 6


def test_unknown_lesions_are_not_one_lesion(tmp_path: Path) -> None:
    written = ["NA", "nan", "None", " ", "", "n/a", "L1", "L1"]
    rows = [(f"i{n}", "mel", lesion) for n, lesion in enumerate(written)]
    write(tmp_path / "some.csv", [("image_id", "dx", "lesion_id"), *rows])
    assert external_set.read_labels(tmp_path / "some.csv")["lesion_id"].nunique() == 7


def test_images_that_were_trained_on_are_refused_dropped_or_kept(
    model: Path, labelled: Path, tmp_path: Path, refusal: Callable[..., str], trained_on: np.ndarray
) -> None:
    without = evaluate(model, labelled / "images", labelled / "ham.csv", tmp_path / "without")[1]
    Image.fromarray(trained_on).save(labelled / "images/copy.png")
    with (labelled / "ham.csv").open("a") as stream:
        stream.write("copy,mel\n")
    call = ["evaluate", "--model", model, "--images", labelled / "images", "--labels", labelled / "ham.csv"]
    said = refusal(*call)
    assert "1 of 41 images show the same as ones" in said and "copy (ISIC_TRAIN)" in said
    cli.main([*map(str, call), "--output", str(tmp_path / "dropped"), "--shared", "drop"])
    dropped = json.loads((tmp_path / "dropped/metrics.json").read_text())
    assert dropped.pop("shared") == {"asked": "drop", "left_out": 1}
    assert dropped == {key: value for key, value in without.items() if key != "shared"}
    cli.main([*map(str, call), "--output", str(tmp_path / "kept"), "--shared", "keep"])
    assert json.loads((tmp_path / "kept/metrics.json").read_text())["n"]["images"] == 41
    (tmp_path / overlap.INDEX).unlink()
    assert "image_index.npz is missing" in refusal(*call)
    cli.main([*map(str, call), "--output", str(tmp_path / "blind"), "--shared", "keep"])
    assert json.loads((tmp_path / "blind/metrics.json").read_text())["n"]["images"] == 41


def test_a_lesion_that_was_trained_on_leaves_with_all_its_photographs(
    model: Path, labelled: Path, tmp_path: Path, refusal: Callable[..., str], trained_on: np.ndarray
) -> None:
    with (labelled / "ham.csv").open() as stream:
        rows = list(csv.reader(stream))[1:]
    Image.fromarray(trained_on).save(labelled / "images/acopy.png")
    table = [("acopy", "mel", "L0"), *((name, dx, f"L{n // 4}") for n, (name, dx) in enumerate(rows))]
    call = ["evaluate", "--model", model, "--images", labelled / "images", "--labels", tmp_path / "some.csv"]
    call += ["--shared", "drop", "--robustness", "1", "--output", tmp_path / "out"]
    write(tmp_path / "some.csv", [("image_id", "dx", "lesion_id"), *table])
    cli.main([str(argument) for argument in call])
    result = json.loads((tmp_path / "out/metrics.json").read_text())
    assert result["shared"] == {"asked": "drop", "left_out": 5} and result["n"]["images"] == len(rows) - 4
    assert result["robustness"]["n"]["images"] == 1, "chosen among the evaluated ones"
    write(tmp_path / "some.csv", [("image_id", "dx", "lesion_id"), *((name, dx, "L0") for name, dx, _ in table)])
    assert "nothing is left to judge on" in refusal(*call)


def test_ids_and_lesion_ids_of_train_are_refused_before_anything_is_predicted(
    model: Path, labelled: Path, tmp_path: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (labelled / "ham.csv").open() as stream:
        rows = list(csv.reader(stream))[1:]
    (labelled / "images" / "part0" / "ISIC_0000000.jpg").rename(labelled / "images" / "isic_train.jpg")
    renamed = [("isic_train" if name == "ISIC_0000000" else name, dx) for name, dx in rows]
    lesions = [(name, dx, "HAM_TRAIN" if n < 3 else f"L{n}") for n, (name, dx) in enumerate(rows)]
    call = ["evaluate", "--model", model, "--images", labelled / "images", "--labels", tmp_path / "some.csv"]
    write(tmp_path / "some.csv", [("image_id", "dx"), *renamed])
    with monkeypatch.context() as patch:
        patch.setattr(Detector, "predict", lambda *_: pytest.fail("predicted"))
        assert "1 of 40 images have ids of ones" in refusal(*call)
    (labelled / "images" / "isic_train.jpg").rename(labelled / "images" / "ISIC_0000000.jpg")
    write(tmp_path / "some.csv", [("image_id", "dx", "lesion_id"), *lesions])
    assert "3 of 40 images have ids of ones" in (said := refusal(*call)) and "(HAM_TRAIN)" in said
    cli.main([*map(str, call), "--shared", "drop", "--output", str(tmp_path / "out")])
    result = json.loads((tmp_path / "out/metrics.json").read_text())
    assert result["n"]["images"] == 37 and result["shared"]["left_out"] == 3


def test_copies_of_each_image_do_not_narrow_the_intervals(model: Path, tmp_path: Path) -> None:
    """The same 30 pictures once, and three times under other names, mirrored and saved again."""
    random, rows = np.random.default_rng(3), []
    for n in range(30):
        image = Image.fromarray(phantom.draw(random, CLASSES[n % 7], 150, 200))
        rows.append([(f"a{n}", CLASSES[n % 7]), (f"b{n}", CLASSES[n % 7]), (f"c{n}", CLASSES[n % 7])])
        for name, copy in zip("abc", (image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), image), strict=True):
            (tmp_path / "set").mkdir(exist_ok=True)
            copy.save(tmp_path / f"set/{name}{n}.jpg", quality={"a": 95, "b": 80, "c": 60}[name])
    write(tmp_path / "one.csv", [("image_id", "dx"), *(one for one, *_ in rows)])
    write(tmp_path / "three.csv", [("image_id", "dx"), *(row for three in rows for row in three)])
    once, thrice = (evaluate(model, tmp_path / "set", tmp_path / f"{name}.csv", tmp_path / name)[1]
                    for name in ("one", "three"))  # fmt: skip
    assert thrice["n"]["images"] == 90 and 28 <= once["n"]["lesions"] <= 30
    assert thrice["n"]["lesions"] <= 31 and "repeated pictures" in thrice["resampled"]["sentence"]
    widths = [np.ptp(result["intervals"]["melanoma.roc_auc"]) for result in (once, thrice)]
    assert widths[1] > 0.9 * widths[0]


def test_an_outside_set_gets_the_whole_protocol(labelled: Path, tmp_path: Path) -> None:
    by_class = dict.fromkeys(CLASSES, 0.9)
    rules = {"conformal": {"coverage": 0.9, "marginal": 0.8, "class_conditional": by_class}, "keep": {"0.9": 0.2}}
    texts = {"thresholds": json.dumps(THRESHOLDS), "selective": json.dumps(rules)}
    model = tiny_model(tmp_path / "whole.onnx", **texts)
    with (labelled / "ham.csv").open() as stream:
        rows = list(csv.reader(stream))[1:]
    more = [(name, dx, ("male", "female")[n % 2], 10 * (n % 9), "back") for n, (name, dx) in enumerate(rows)]
    write(tmp_path / "more.csv", [("image_id", "dx", "sex", "age_approx", "anatom_site_general"), *more])
    arguments = ["--model", model, "--images", labelled / "images", "--labels", tmp_path / "more.csv"]
    cli.main(["evaluate", *map(str, arguments), "--output", str(tmp_path / "out"), "--robustness", "10"])
    result = json.loads((tmp_path / "out/metrics.json").read_text())
    assert {row["group"] for row in result["subgroups"]["rows"]} >= {"sex", "age", "site", "histology"}
    assert result["selective"]["conformal"]["coverage_aimed_at"] == 0.9
    assert set(result["net_benefit"]) == {"here", "screening"}
    assert result["robustness"]["n"]["images"] == 10 and len(result["robustness"]["conditions"]) > 8
    for name in ("curves/roc", "curves/decision", "curves/risk_coverage", "confusion"):
        assert (tmp_path / f"out/{name}.csv").exists()


def test_a_labelled_image_that_is_missing_is_named(model: Path, labelled: Path, refusal: Callable[..., str]) -> None:
    next((labelled / "images").rglob("ISIC_0000003.*")).unlink()
    said = refusal("evaluate", "--model", model, "--images", labelled / "images", "--labels", labelled / "ham.csv")
    assert "lacks 1 images" in said and "ISIC_0000003" in said


def test_an_image_without_label_is_named_and_left_out(
    model: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without = evaluate(model, labelled / "images", labelled / "ham.csv", tmp_path / "without")
    picture(labelled / "images" / "extra.png", (1, 2, 3))
    capsys.readouterr()
    assert evaluate(model, labelled / "images", labelled / "ham.csv", tmp_path / "with") == without
    assert "1 images without a label are left out (extra)" in capsys.readouterr().err


def test_other_column_names_and_words_are_understood(model: Path, labelled: Path, tmp_path: Path) -> None:
    with (labelled / "ham.csv").open() as stream:
        rows = list(csv.reader(stream))[1:]
    words = {"mel": "Melanoma", "nv": "NEV", "akiec": "ACK"}
    renamed = [("Img ID", "Diagnostic"), *((f"{name}.png", words.get(dx, dx)) for name, dx in rows)]
    write(tmp_path / "renamed.csv", renamed)
    ham = evaluate(model, labelled / "images", labelled / "ham.csv", tmp_path / "a")
    assert evaluate(model, labelled / "images", tmp_path / "renamed.csv", tmp_path / "b") == ham


def test_patient_metadata_and_lesions_beside_one_hot_labels_are_read(labelled: Path, tmp_path: Path) -> None:
    with (labelled / "onehot.csv").open() as stream:
        head, *rows = csv.reader(stream)
    more = [(*row, f"L{n // 2}" if n else "", 10 * (n % 9), "histopathology") for n, row in enumerate(rows)]
    write(tmp_path / "more.csv", [(*head, "lesion_id", "age_approx", "diagnosis_confirm_type"), *more])
    found = external_set.read_labels(tmp_path / "more.csv").set_index("image_id")
    assert found.loc[rows[0][0], "lesion_id"] == rows[0][0]  # left empty: a lesion of its own
    assert found.loc[rows[5][0], ["lesion_id", "age", "dx_type"]].tolist() == ["L2", 50, "histo"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("image_id", "dx"), ("a", "melanosis"), ("b", "wart")], "unknown dx 'melanosis', 'wart' (known: nv, mel"),
        ([("image", *map(str.upper, CLASSES)), ("a", 1, 1, 0, 0, 0, 0, 0)], "unknown dx 'none or several'"),
        ([("image_id", "dx"), ("a", "nv"), ("a", "nv")], "a more than once"),
        ([("name", "dx"), ("a", "nv")], "has no table with an image id and a diagnosis"),
        ([("image_id", "dx")], "no rows"),
    ],
)
def test_bad_labels_are_refused(
    rows: list[tuple[object, ...]], message: str, model: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    write(tmp_path / "labels.csv", rows)
    said = refusal("evaluate", "--model", model, "--images", tmp_path, "--labels", tmp_path / "labels.csv")
    assert message in said


def test_bad_images_are_refused(model: Path, labelled: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    labels = labelled / "ham.csv"
    assert "neither a folder nor" in refusal("evaluate", "--model", model, "--images", labels, "--labels", labels)
    picture(labelled / "images" / "ISIC_0000001.jpg", (1, 2, 3))
    said = refusal("evaluate", "--model", model, "--images", labelled / "images", "--labels", labels)
    assert "image ISIC_0000001 is there more than once" in said


def test_phantom_draws_a_data_set(tmp_path: Path) -> None:
    cli.main(["phantom", str(tmp_path / "p"), "--lesions", "8", "--height", "24", "--width", "32"])
    assert (tmp_path / "p" / "HAM10000_metadata.csv").exists()


@pytest.mark.parametrize("number", ["-1", "many"])
def test_a_number_out_of_range_is_a_sentence(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", "--images", "i", "--labels", "l", f"--robustness={number}"])
    said = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 2 and f"argument --robustness: needs a whole number of at least 0, not {number}" in said


def test_data_goes_to_data_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr("dermdistill.ingest.fetch.bring", lambda *a: calls.append(a))
    monkeypatch.setattr("dermdistill.ingest.fetch.download", lambda *a: calls.append(a))
    cli.main(["data", "somewhere"])
    cli.main(["data"])
    cli.main(["data", "elsewhere", "--other", "derm7pt"])
    assert calls == [
        (Path("somewhere"), "data/raw"),
        ("data/raw",),
        (Path("elsewhere"), "data/raw_other/derm7pt"),
    ]
    for wrong in (["--other", "derm7pt"], ["elsewhere", "--other", "../x"]):
        with pytest.raises(SystemExit):
            cli.main(["data", *wrong])
