"""INT8 stays close to FP32, is reproducible, and the stages around it refuse what was not evaluated."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from deployment.test_onnx_export import exported_bytes, small_classifier, some_images
from helpers import SMALL, change_params
from PIL import Image

from dermdistill import params
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import load_split
from dermdistill.core.files import read_json, sha256, write_json
from dermdistill.core.model_id import ModelId
from dermdistill.deployment import onnx_export
from dermdistill.deployment.runtime import Detector, without_optimisations
from dermdistill.errors import UserError
from dermdistill.metrics import calibration, parity, predictions, selective
from dermdistill.params import Model
from dermdistill.quantization import candidates
from dermdistill.quantization.int8 import Quantizer, choose, layers, overflowing
from dermdistill.training import models
from stages import export as export_stage
from stages import predict, ship
from stages import quantize as quantize_stage

IMAGES = some_images(60)
ID = "int8_smaller_s0"


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Quantizer:
    """Of one small network."""
    folder = tmp_path_factory.mktemp("quantize")
    (folder / "fp32.onnx").write_bytes(exported_bytes())
    (folder / "scratch").mkdir()
    return Quantizer(folder / "fp32.onnx", IMAGES[:40], folder / "scratch")


@pytest.fixture(scope="module")
def files(maker: Quantizer) -> tuple[Path, Path]:
    """FP32 and INT8."""
    fp32 = maker.scratch.parent / "fp32.onnx"
    maker.static(fp32.with_name("int8.onnx"), "minmax")
    return fp32, fp32.with_name("int8.onnx")


def test_int8_agrees_with_fp32(files: tuple[Path, Path]) -> None:
    found = parity.compare(*(Detector(path).predict(IMAGES[20:]) for path in files))
    assert found["agreement"] >= 0.9 and 0 < found["mean_abs_dp"] < 0.03
    literal = without_optimisations(files[1], IMAGES, np.arange(20, 60))
    assert parity.compare(*literal)["max_abs_dp"] < 0.1


@pytest.mark.parametrize("size", [[49, 75], [25, 37]])
def test_a_network_that_resizes_agrees_in_int8(size: list[int], tmp_path: Path) -> None:
    onnx_export.to_onnx(small_classifier(size=size), *IMAGES.shape[1:3], tmp_path / "fp32.onnx")
    Quantizer(tmp_path / "fp32.onnx", IMAGES[:40], tmp_path).static(tmp_path / "int8.onnx", "minmax")
    pair = (Detector(tmp_path / f"{name}.onnx").predict(IMAGES[20:]) for name in ("fp32", "int8"))
    found = parity.compare(*pair)
    assert found["agreement"] >= 0.9 and 0 < found["mean_abs_dp"] < 0.03


def test_a_vit_shrinks_by_the_schemes_that_know_more_than_convolutions(tmp_path: Path) -> None:
    spec = Model(
        **SMALL | {"arch": "test_vit", "cut": None, "size": [48, 64]}, epochs=1, lr=1.0, dropout=0.0, keep="last"
    )
    onnx_export.to_onnx(models.build(spec)[0].eval(), *IMAGES.shape[1:3], tmp_path / "fp32.onnx")
    quantizer = Quantizer(tmp_path / "fp32.onnx", IMAGES[:16], tmp_path)
    assert list(quantizer.layers) == ["patch_embed.proj"]
    made = candidates.build(quantizer, ["default", "per_tensor", "minmax", "weight_only", "dynamic"], [], pytest.fail)
    exact, whole = Detector(tmp_path / "fp32.onnx").predict(IMAGES), (tmp_path / "fp32.onnx").stat().st_size
    for scheme, file in made.items():
        share, found = file.stat().st_size / whole, parity.compare(exact, Detector(file).predict(IMAGES))
        assert share < 0.5 if scheme in ("default", "per_tensor") else share > 0.8, scheme
        assert 0 < found["max_abs_dp"] < 0.1, scheme


def test_convolutions_are_int8_and_only_they(files: tuple[Path, Path]) -> None:
    model = onnx.load(files[1])
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weights = [
        node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear" if node.input[0] in types
    ]
    convolutions = sum(node.op_type == "Conv" and node.name != onnx_export.NORMALISE for node in model.graph.node)
    assert sum(types[name] == onnx.TensorProto.INT8 for name in weights) == convolutions > 5
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and tensor.name in weights:
            assert np.abs(onnx.numpy_helper.to_array(tensor)).max() <= 64  # 7 bits: no saturation on AVX2
    quantized = {name for node in model.graph.node if node.op_type == "QuantizeLinear" for name in node.input[:1]}
    after = {"logits", "logits.scaled", "logits.calibrated", "probabilities"}
    assert not quantized & after
    assert types[onnx_export.SCALE] == types[onnx_export.BIAS] == onnx.TensorProto.FLOAT


def test_the_same_inputs_give_the_same_bytes(files: tuple[Path, Path], tmp_path: Path) -> None:
    Quantizer(files[0], IMAGES[:40], tmp_path).static(tmp_path / "again.onnx", "minmax")
    assert (tmp_path / "again.onnx").read_bytes() == files[1].read_bytes()
    assert b"/tmp" not in files[1].read_bytes() and b".onnx" not in files[1].read_bytes()
    assert {path.name for path in files[0].parent.iterdir()} == {"fp32.onnx", "int8.onnx", "scratch"}


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_other_calibration_methods_work(maker: Quantizer, tmp_path: Path, method: str) -> None:
    maker.static(tmp_path / "m.onnx", method)  # type: ignore[arg-type]
    fp32, int8 = (Detector(path).predict(IMAGES) for path in (maker.plain, tmp_path / "m.onnx"))
    assert (fp32.argmax(axis=1) == int8.argmax(axis=1)).mean() >= 0.9


def test_corrected_biases_keep_the_mean(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dermdistill.quantization.int8._correct_biases", lambda *_: None)
    Quantizer(files[0], IMAGES[:40], tmp_path).static(tmp_path / "uncorrected.onnx", "minmax")
    fp32, with_it, without = (Detector(p).predict(IMAGES) for p in (*files, tmp_path / "uncorrected.onnx"))
    assert np.abs(with_it - fp32).mean() < np.abs(without - fp32).mean()


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_every_scheme_is_what_it_says(maker: Quantizer, files: tuple[Path, Path]) -> None:
    sensitive = candidates.sensitivity(maker, IMAGES[:20])
    assert {row["layer"] for row in sensitive} == set(maker.layers)
    changes = [row["mean_abs_dp"] for row in sensitive]
    assert changes == sorted(changes, reverse=True) and changes[0] > changes[-1] > 0
    ranking = [row["layer"] for row in sensitive]
    schemes = ["default", "per_tensor", "minmax", "mixed_2", "weight_only", "dynamic"]
    made = candidates.build(maker, schemes, ranking, tune=pytest.fail)
    assert made["minmax"].read_bytes() == files[1].read_bytes()
    assert operators(made["dynamic"]).count("ConvInteger") == len(ranking)
    assert "QuantizeLinear" not in operators(made["weight_only"])
    assert len(operators(made["per_tensor"])) > len(operators(made["minmax"])) > len(operators(made["mixed_2"]))
    kept = {tensor.name for tensor in onnx.load(made["mixed_2"]).graph.initializer if tensor.data_type == 1}
    assert {f"network.{layer}.weight" for layer in ranking[:2]} <= kept
    assert not {f"network.{layer}.weight" for layer in ranking[2:]} & kept
    fp32 = Detector(maker.plain).predict(IMAGES)
    change = {scheme: np.abs(Detector(path).predict(IMAGES) - fp32).mean() for scheme, path in made.items()}
    coarse = Detector(made["default"]).predict(IMAGES)
    assert len(np.unique(coarse)) <= 256 and np.abs(coarse.sum(axis=1) - 1).max() > 1e-3
    assert change["weight_only"] < change["minmax"] < change["per_tensor"]
    assert change["mixed_2"] < change["minmax"]
    for path in made.values():
        assert overflowing(path) == 0
    assert set(candidates.time_ratios(maker.plain, made, IMAGES[:1], 2)) == set(schemes)


def test_weights_that_would_overflow_are_counted(files: tuple[Path, Path], tmp_path: Path) -> None:
    model = onnx.load(files[1])
    weight = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4)
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[:3] = (65, -127, 64)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "full.onnx")
    assert overflowing(files[1]) == 0 and overflowing(tmp_path / "full.onnx") == 2


def test_calibration_images_are_drawn_by_seed_from_the_rows_given() -> None:
    rows = np.arange(100, 200)
    first = choose(rows, 30, 1)
    assert len(set(first)) == 30 and set(first) <= set(rows) and (np.diff(first) > 0).all()
    assert np.array_equal(first, choose(rows, 30, 1)) and not np.array_equal(first, choose(rows, 30, 2))
    assert np.array_equal(choose(rows, 500, 1), rows)


def test_what_cannot_be_quantized_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one calibration image"):
        Quantizer(files[0], IMAGES[:0], tmp_path)
    model = onnx.load(files[0])
    for node in model.graph.node:
        node.op_type = "Identity" if node.op_type == "Conv" else node.op_type
    with pytest.raises(UserError, match="no convolution"):
        layers(model)


@pytest.fixture(scope="module")
def quantized(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after quantize and predict, with predictions of the FP32 student and a calibration."""
    folder = tmp_path_factory.mktemp("shipping") / "project"
    shutil.copytree(prepared, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        spec = params.load().students["smaller"]
        card = models.build(spec)[1]
        models.save(
            "models/students/student_smaller_s0",
            small_classifier(),
            card | {"cut": {"stages": 1, "blocks": 1, "head": 16}},
        )
        change("quantize.limits", max_auc_drop=1.0, max_ece_rise=1.0, min_equal_decisions=0.5)  # it knows nothing
        quantize_stage.main("smaller", "0")
        predict.main(ID)
        deploy_ready()
    return folder


def deploy_ready() -> None:
    """What `collect` and `calibrate` would do, for this one model."""
    for part in ("val", "holdout"):
        Path(f"predictions/{part}").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ModelId.parse(ID).predictions(part), f"predictions/{part}/{ID}.csv")
    calibrate(ID)


def calibrate(model_id: str) -> None:
    val, options = predictions.read(f"predictions/val/{model_id}.csv"), params.load().calibrate
    fitted = calibration.fit(val.labels, val.probabilities, options.sensitivity)
    rules = selective.fit(val.labels, fitted.apply(val.probabilities), options.coverage, options.keep)
    write_json(f"metrics/calibrate/{model_id}.json", fitted.to_dict() | rules.to_dict())


def rows(image_id: np.ndarray) -> np.ndarray:
    order = pd.read_csv("data/prepared/metadata.csv", dtype=str)["image_id"]
    return pd.Index(order).get_indexer(pd.Index(image_id))


def write_predictions(model: str, like: predictions.Predictions, probabilities: np.ndarray) -> None:
    dx = [CLASSES[label] for label in like.labels]
    predictions.write(f"predictions/val/{model}.csv", like.image_id, like.lesion_id, dx, probabilities)


def change(block: str, **limits: float) -> None:
    change_params(Path.cwd(), {f"{block}.{name}": value for name, value in limits.items()})


@pytest.fixture
def shipping(quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(quantized, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Path.cwd()


def test_predictions_do_not_depend_on_the_batch(shipping: Path) -> None:
    val = predictions.read(f"predictions/val/{ID}.csv")
    detector, images = Detector(f"models/students/{ID}/model.onnx"), np.load("data/prepared/images.npy")
    single = np.concatenate([detector.predict(images, rows(val.image_id)[i : i + 1]) for i in range(len(val))])
    np.testing.assert_allclose(single, val.probabilities, atol=1e-6)


def test_the_first_candidate_that_satisfies_every_limit_is_selected(shipping: Path) -> None:
    report = read_json(f"models/students/{ID}/report.json")
    chosen = report["candidates"][report["scheme"]]
    before = list(report["candidates"])[: list(report["candidates"]).index(report["scheme"])]
    assert "sum_error" in report["candidates"]["default"]["violations"] and before
    assert chosen["violations"] == "" and all(report["candidates"][scheme]["violations"] for scheme in before)
    assert chosen["bytes"] == report["bytes"]["int8"] == Path(f"models/students/{ID}/model.onnx").stat().st_size
    table = pd.read_csv(f"models/students/{ID}/candidates.csv")
    assert list(table["scheme"]) == list(report["candidates"]) == params.load().quantize.candidates


def test_the_scales_come_from_training_images_alone(shipping: Path) -> None:
    """Of a given scheme: val chooses among schemes, and neither it nor the holdout may set a scale."""
    wide = {"max_auc_drop": 1.0, "max_ece_rise": 1.0, "min_agreement": 0.0, "min_equal_decisions": 0.0}
    change_params(Path.cwd(), {f"quantize.limits.{name}": value for name, value in wide.items()})
    change_params(Path.cwd(), {"quantize.candidates": ["minmax"], "quantize.sensitivity_images": 2})

    def made() -> str:
        quantize_stage.main("smaller", "0")
        return sha256(f"models/students/{ID}/model.onnx")

    before, pixels = made(), np.load("data/prepared/images.npy")
    for parts, same in ((("holdout", "val"), True), (("train",), False)):
        changed = np.concatenate([load_split(part).rows for part in parts])
        pixels[changed] = pixels[changed] // 4 + 190  # brighter than any range was measured on
        np.save("data/prepared/images.npy", pixels)
        assert (made() == before) == same, parts


def test_without_a_candidate_that_satisfies_the_limits_it_fails_with_the_numbers(shipping: Path) -> None:
    change_params(Path.cwd(), {"quantize.candidates": ["minmax", "weight_only"], "quantize.limits.max_bytes": 10})
    with pytest.raises(UserError, match=r"minmax: bytes \S+ \(allowed 10\); weight_only: bytes \S+ \(allowed 10\)"):
        quantize_stage.main("smaller", "0")


def test_ship_writes_a_calibrated_self_describing_file(shipping: Path) -> None:
    ship.main()
    val, fitted = predictions.read(f"predictions/val/{ID}.csv"), calibration.read(f"metrics/calibrate/{ID}.json")
    detector = Detector("models/deploy/student.int8.onnx")
    found = detector.predict(np.load("data/prepared/images.npy"), rows(val.image_id))
    np.testing.assert_allclose(found, fitted.apply(val.probabilities), atol=1e-4)
    text, report = read_json("models/deploy/student.int8.json"), read_json("metrics/ship.json")
    assert text["thresholds"] == detector.thresholds == dict(fitted.thresholds)
    assert text["sha256"] == report["sha256"] and report["id"] == ID
    sources = {"source": f"models/students/{ID}/model.onnx", "calibration": f"metrics/calibrate/{ID}.json"}
    for name, path in sources.items():
        assert detector.metadata[f"{name}_sha256"] == text[f"{name}_sha256"] == sha256(path)
    example, deployed = text["example"], Path("models/deploy")
    prepared = np.asarray(Image.open(deployed / example["pixels"]))
    assert detector.predict(prepared[None])[0] == pytest.approx(example["probabilities"], abs=1e-6)
    assert detector.predict_files([deployed / example["photograph"]])[0] == pytest.approx(
        example["probabilities"], abs=1e-6
    )
    content = Path("models/deploy/student.int8.onnx").read_bytes()
    ship.main()
    assert Path("models/deploy/student.int8.onnx").read_bytes() == content


@pytest.fixture
def exporting(shipping: Path) -> Path:
    """After ship, with the FP32 student's predictions and calibration."""
    ship.main()
    like = predictions.read(f"predictions/val/{ID}.csv")
    fp32 = Detector(f"models/students/{ID}/fp32.onnx").predict(np.load("data/prepared/images.npy"), rows(like.image_id))
    write_predictions("student_smaller_s0", like, fp32)
    calibrate("student_smaller_s0")
    return shipping


def test_every_export_is_run_on_val_and_compared(exporting: Path) -> None:
    export_stage.main()
    report = read_json("metrics/export.json")
    val = predictions.read(f"predictions/val/{ID}.csv")
    assert report["n"] == len(val) and set(report["formats"]) == {"onnx", "torch_export", "onnx_int8"}
    for name in ("onnx", "torch_export"):
        assert (
            report["formats"][name]["batch_1"]["max_abs_dp"] < 1e-5 > report["formats"][name]["batch_32"]["max_abs_dp"]
        )
    int8 = report["formats"]["onnx_int8"]
    assert int8["cost"]["agreement"] == int8["batch_1"]["agreement"] and "max_abs_dp" in int8["optimisations_off"]
    metadata = Detector("models/exported/student.fp32.onnx").metadata
    assert metadata["id"] == "student_smaller_s0" and {"classes", "licence", "thresholds", "source_sha256"} <= set(
        metadata
    )


def test_an_export_that_strays_fails_with_the_numbers(exporting: Path) -> None:
    like = predictions.read("predictions/val/student_smaller_s0.csv")
    write_predictions("student_smaller_s0", like, np.roll(like.probabilities, 1, axis=0))
    with pytest.raises(UserError, match=r"onnx: batch_1 max_abs_dp 0\.\d+ \(allowed 0\.0001\)"):
        export_stage.main()
    assert not Path("metrics/export.json").exists()


def test_ship_refuses_predictions_that_the_file_does_not_give(shipping: Path) -> None:
    val = predictions.read(f"predictions/val/{ID}.csv")
    write_predictions(ID, val, np.roll(val.probabilities, 1, axis=0))
    with pytest.raises(UserError, match="max_abs_dp"):
        ship.main()
    assert not list(Path("models").glob("deploy/*"))


def test_ship_refuses_a_graph_calibrated_otherwise(shipping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = onnx_export.calibrate
    monkeypatch.setattr(onnx_export, "calibrate", lambda model, temperature, bias: right(model, 2 * temperature, bias))
    with pytest.raises(UserError, match="max_abs_dp"):
        ship.main()


def test_ship_refuses_predictions_of_other_images(shipping: Path) -> None:
    table = pd.read_csv("data/splits/val.csv", dtype=str)
    table.iloc[1:].to_csv("data/splits/val.csv", index=False)
    with pytest.raises(UserError, match=r"not of the images in data/splits/val\.csv"):
        ship.main()
