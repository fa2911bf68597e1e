"""The audit finds all near hashes and photographs of one lesion, and confirms no pair of two lesions."""

import json
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import pytest
from helpers import REPOSITORY, change_params, shrunk_params, write_params
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dermdistill import params
from dermdistill.errors import UserError
from dermdistill.phantom import camera, tissue
from dermdistill.splitting import candidates, duplicates, geometry, image_index, overlap, split_audit, splits
from stages import audit as stage
from stages import metadata
from stages import split as split_stage

THRESHOLDS = duplicates.Thresholds(votes=4, hash_distance=4, inliers=10, correlation=0.1)
EVERYTHING = ["geometry", "pixels", "eye", "published"]


def brute(codes: np.ndarray, distance: int) -> set[tuple[int, int]]:
    table = np.bitwise_count(codes[:, None] ^ codes[None])
    return {(int(i), int(j)) for i, j in np.argwhere(table <= distance) if i < j}


# Codes of few distinct bits, so that near ones are common.
codes = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 255), max_size=60).map(lambda c: np.array(c, np.uint64))


@given(codes, st.integers(0, 8))
def test_near_finds_exactly_what_comparing_all_pairs_finds(hashes: np.ndarray, distance: int) -> None:
    pairs = candidates.near(hashes, distance)
    assert {tuple(pair) for pair in pairs.tolist()} == brute(hashes, distance)
    assert pairs.tolist() == sorted(pairs.tolist())


def views(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two photographs of each of ``count`` phantom lesions, (2 · count, 150, 200, 3), and their lesions."""
    pictures = []
    for lesion in range(count):
        painter = np.random.default_rng([seed, lesion])
        ground = tissue.paint(painter, ("mel", "nv", "bkl", "bcc")[lesion % 4], 150)
        pictures += [camera.photograph(painter, ground, 150, 200) for _ in range(2)]
    return np.array(pictures), np.repeat(np.arange(count), 2)


Phantoms = tuple[np.ndarray, np.ndarray, duplicates.Descriptors]  # images, their lesions, their descriptors


@pytest.fixture(scope="module")
def phantoms() -> Phantoms:
    images, lesion = views(12)
    return images, lesion, duplicates.compute_descriptors(images)


def test_photographs_of_one_lesion_are_confirmed_and_those_of_two_are_not(phantoms: Phantoms) -> None:
    images, lesion, descriptors = phantoms
    every = np.array([(i, j) for i in range(len(images)) for j in range(i + 1, len(images))])
    table = duplicates.verify(images, descriptors.features, every, THRESHOLDS)
    same = lesion[every[:, 0]] == lesion[every[:, 1]]
    assert table["geometry"][same].mean() > 0.5 and not table[duplicates.MEASURES][~same].any(axis=None)


def test_a_turned_zoomed_and_recoloured_copy_is_confirmed(phantoms: Phantoms) -> None:
    image = phantoms[0][0]
    turned = Image.fromarray(image).rotate(25, Image.Resampling.BICUBIC, expand=False).crop((30, 22, 170, 128))
    other = np.clip(np.asarray(turned.resize((200, 150), Image.Resampling.BICUBIC)) * [0.8, 0.9, 1.0] + 10, 0, 255)
    planes = [geometry.grey(picture.astype(np.uint8)) for picture in (image, other)]
    result = geometry.match(*planes, *map(geometry.features, planes))
    assert result.inliers >= 20 and result.correlation > 0.5 and result.scale == pytest.approx(200 / 140, rel=0.03)


def test_pictures_without_features_match_nothing() -> None:
    flat = np.full((150, 200), 128, np.uint8)
    assert geometry.match(flat, flat, geometry.features(flat), geometry.features(flat)) == geometry.NONE
    assert candidates.voted([np.zeros((0, 128), np.uint8)] * 3, 1).shape == (0, 2)
    assert candidates.near(np.zeros(0, np.uint64), 3).shape == (0, 2)


def test_equal_images_are_duplicates_however_little_they_show() -> None:
    flat = np.full((3, 150, 200, 3), 128, np.uint8)
    flat[2, 0, 0] = 0  # nearly equal is not enough without features
    descriptors = duplicates.compute_descriptors(flat)
    assert duplicates.propose(descriptors, THRESHOLDS).tolist() == [[0, 1]]
    every = np.array([[0, 1], [0, 2], [1, 2]])
    table = duplicates.verify(flat, descriptors.features, every, THRESHOLDS)
    assert table["pixels"].tolist() == [True, False, False] and not table["geometry"].any()


def test_votes_propose_most_pairs_that_geometry_confirms(phantoms: Phantoms) -> None:
    images, _, descriptors = phantoms
    own = np.arange(len(images)).reshape(-1, 2)
    confirmed = own[duplicates.verify(images, descriptors.features, own, THRESHOLDS)["geometry"]]
    proposed = {tuple(pair) for pair in duplicates.propose(descriptors, THRESHOLDS).tolist()}
    assert sum(tuple(pair) in proposed for pair in confirmed.tolist()) >= 0.7 * len(confirmed)


def test_small_pictures_are_enlarged_first() -> None:
    assert geometry.grey(np.zeros((60, 80, 3), np.uint8)).shape == (150, 200)
    assert geometry.grey(np.zeros((450, 600, 3), np.uint8)).shape == (450, 600)


# --- what confirms a pair -----------------------------------------------------------------------------------------


def named(count: int) -> pd.DataFrame:
    """Metadata of ``count`` images, each of a lesion of its own: ``i0`` of ``l0``, and so on."""
    return pd.DataFrame([(f"i{n}", f"l{n}", "nv") for n in range(count)], columns=["image_id", "lesion_id", "dx"])


def pair(a: str, b: str, **more: str) -> pd.DataFrame:
    return pd.DataFrame([{"image_a": a, "image_b": b} | more])


def test_a_listed_pair_joins_although_geometry_rejects_it(phantoms: Phantoms) -> None:
    images = phantoms[0][[0, 1, 2, 4]]  # two of one lesion, and two others
    lists = {"eye": pair("i3", "i2"), "published": pair("i0", "i1"), "another": pair("i0", "i9")}
    strict = THRESHOLDS._replace(votes=1000, hash_distance=0, inliers=1000)  # nothing is a candidate
    found = duplicates.find_pairs(images, named(4), strict, EVERYTHING, lists)
    assert found["confirmed"].all() and found["confirmed_by"].tolist() == ["published", "eye"]
    assert found[["image_a", "image_b"]].to_numpy().tolist() == [["i0", "i1"], ["i2", "i3"]]
    assert found["inliers"][0] > found["inliers"][1]  # measured all the same
    result = duplicates.summary(found, named(4), duplicates.read_labels().head(0))
    assert result["confirmed_duplicates"] == 2 and result["confirmed_by_eye"] == result["confirmed_by_published"] == 1
    assert duplicates.find_pairs(images, named(4), strict, ["geometry", "pixels"], lists).empty
    wide = THRESHOLDS._replace(inliers=4, correlation=0.0)
    both = duplicates.find_pairs(images, named(4), wide, EVERYTHING, lists).set_index(["image_a", "image_b"])
    assert both.loc[("i0", "i1"), "confirmed_by"] == "geometry published"


def test_a_verdict_of_different_overrules_no_equal_pixels_and_lists_count_for_no_precision() -> None:
    flat = np.stack([np.full((150, 200, 3), value, np.uint8) for value in (128, 128, 90)])
    labels = pd.concat([pair("i0", "i1", verdict="different"), pair("i0", "i2", verdict="same")])
    lists = duplicates.read_lists(labels)
    assert lists["eye"][["image_a", "image_b"]].to_numpy().tolist() == [["i0", "i2"]]
    found = duplicates.find_pairs(flat, named(3), THRESHOLDS, EVERYTHING, lists)
    by = found.set_index(["image_a", "image_b"])["confirmed_by"]
    assert by["i0", "i1"] == "pixels" and by["i0", "i2"] == "eye"
    seen = duplicates.summary(found, named(3), labels)["labelled_by_eye"]
    assert (seen["confirmed_but_different"], seen["rejected_but_same"], seen["confirmed_and_same"]) == (1, 1, 0)


def test_no_confirmed_pair_crosses_after_the_split(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = split_audit.read_parts(Path("data/splits"))
    a, b, c = (parts.index[parts == part][0] for part in splits.PARTS)
    lists = {"eye": pair(a, b), "published": pair(b, c)}
    monkeypatch.setattr(duplicates, "read_lists", lambda labels: lists)
    change_params(project, {"audit.confirmed_by": EVERYTHING})
    stage.main()
    split_stage.main()
    now = split_audit.read_parts(Path("data/splits"))
    assert (now[[a, b, c]] == "train").all()
    pairs = pd.read_csv("data/audit/pairs.csv", keep_default_na=False)
    confirmed = pairs[pairs["confirmed"]]
    assert (now[confirmed["image_a"]].to_numpy() == now[confirmed["image_b"]].to_numpy()).all()
    assert json.loads(Path("metrics/split.json").read_text())["duplicate_lesions_in_several_parts"] == 0


def test_the_lists_of_the_repository_only_take_from_its_holdout() -> None:
    """What the next preset confirms without measuring, on the committed split."""
    folder = REPOSITORY / "data/splits"
    table = pd.concat([pd.read_csv(folder / f"{part}.csv", dtype=str) for part in splits.PARTS])
    lesion = table.set_index("image_id")["lesion_id"]
    lists = duplicates.read_lists(duplicates.read_labels())
    assert len(lists["published"]) == 18
    sides = [
        pd.DataFrame({f"lesion_{x}": lesion[rows[f"image_{x}"]].to_numpy() for x in "ab"}) for rows in lists.values()
    ]
    known = pd.concat([pd.read_csv(REPOSITORY / "data/audit/duplicates.csv", dtype=str), *sides])
    committed = json.loads((folder / "assignment.json").read_text())
    result = splits.make_splits(table, known, committed["settings"], 0, committed)
    part = result.assignment["lesions"]
    assert (known["lesion_a"].map(part) == known["lesion_b"].map(part)).all()
    kept = {name for name, where in part.items() if where == "holdout"}
    assert kept < {name for name, where in committed["lesions"].items() if where == "holdout"}


# --- summary and labels -----------------------------------------------------------------------------------------


def test_precision_is_of_pairs_with_a_clear_verdict() -> None:
    pairs = pd.DataFrame({"image_a": list("abcde"), "image_b": list("vwxyz"), "confirmed": [1, 1, 1, 0, 0]})
    labels = pairs[["image_a", "image_b"]].assign(verdict=["same", "different", "unsure", "same", "different"])
    result = duplicates.precision(pairs, labels)
    assert result["precision_of_confirmed"] == 0.5 and result["unsure"] == 1
    assert [result[key] for key in ("confirmed_and_same", "rejected_but_same", "rejected_and_different")] == [1, 1, 1]
    assert duplicates.precision(pairs, labels.head(0))["precision_of_confirmed"] is None


def test_the_committed_labels_are_of_real_pairs_and_many_enough() -> None:
    labels = duplicates.read_labels()
    splits = pd.concat([pd.read_csv(path) for path in (REPOSITORY / "data/splits").glob("*.csv")])
    lesion = splits.set_index("image_id")["lesion_id"]
    assert len(labels) >= 100 and not labels.duplicated(["image_a", "image_b"]).any()
    assert (lesion[labels["image_a"]].to_numpy() != lesion[labels["image_b"]].to_numpy()).all()
    assert (labels["verdict"].value_counts()[["same", "different"]] >= 30).all()


def test_labels_of_another_form_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image_a,image_b,verdict\na,b,maybe\n")
    with pytest.raises(UserError, match=r"needs image_a, image_b and verdict \(same, different, unsure\)"):
        duplicates.read_labels(tmp_path / "labels.csv")


@pytest.fixture
def only_duplicates(phantoms: Phantoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which every photograph has a lesion id of its own, so that all pairs are duplicates."""
    images, lesion, _ = phantoms
    (tmp_path / "data/prepared").mkdir(parents=True)
    np.save(tmp_path / "data/prepared/images.npy", images)
    rows = [(f"ISIC_{i:02d}", f"L{number:02d}_{i % 2}", "nv") for i, number in enumerate(lesion.tolist())]
    table = pd.DataFrame(rows, columns=["image_id", "lesion_id", "dx"])
    table.to_csv(tmp_path / "data/prepared/metadata.csv", index=False)
    write_params(tmp_path, shrunk_params())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_stage_writes_duplicates_and_repeats_itself(only_duplicates: Path) -> None:
    stage.main()
    first = {path.name: path.read_bytes() for path in Path("data/audit").iterdir()}
    table = pd.read_csv("data/audit/duplicates.csv")
    metrics = json.loads(Path("metrics/audit.json").read_text())
    assert set(first) == {"pairs.csv", "duplicates.csv"}
    assert list(table) == list(pd.read_csv(REPOSITORY / "data/audit/duplicates.csv"))
    assert set(metrics) == set(json.loads((REPOSITORY / "metrics/audit.json").read_text()))
    assert len(table) == metrics["confirmed_duplicates"] == metrics["groups_of_duplicate_lesions"] >= 5
    assert (table["lesion_a"].str[:3] == table["lesion_b"].str[:3]).all() and metrics["within_lesions"]["pairs"] == 0
    assert metrics["thresholds"] == params.load().audit.thresholds()
    stage.main()
    assert {path.name: path.read_bytes() for path in Path("data/audit").iterdir()} == first


def test_the_metadata_stage_keeps_patient_metadata_of_val_and_holdout_and_an_index_of_train_and_val(
    only_duplicates: Path, phantoms: Phantoms
) -> None:
    table = pd.read_csv("data/prepared/metadata.csv", dtype=str).assign(age="40.0", sex="male", localization="back")
    table.to_csv("data/prepared/metadata.csv", index=False)
    (only_duplicates / "data/splits").mkdir()
    for part, rows in {
        "train": table[:10],
        "val": table[12:16],
        "holdout": table.iloc[[10, 11, *range(16, 24)]],
    }.items():
        rows[::-1].to_csv(f"data/splits/{part}.csv", index=False)
    metadata.main()
    known = image_index.read(overlap.INDEX)
    assert known.image_id.tolist() == table["image_id"][[*range(10), *range(12, 16)]].tolist()
    assert overlap.by_content(["x"], [known.picture(phantoms[0][12])], known) == {"x": "ISIC_12"}
    patients = pd.read_csv("data/patient_metadata.csv", dtype=str)
    assert patients.columns.tolist() == ["image_id", "age", "sex", "localization"]
    assert patients["image_id"].tolist() == table["image_id"][10:].tolist()


def test_the_number_of_threads_changes_no_candidate() -> None:
    random = np.random.default_rng(0)
    rows = list(random.integers(0, 256, (3000, candidates.PER_PICTURE, 128), dtype=np.uint8))
    rows[-300:] = [np.clip(one.astype(int) + random.integers(-40, 41, one.shape), 0, 255).astype(np.uint8)
                   for one in rows[:300]]  # fmt: skip
    threads, pairs = faiss.omp_get_max_threads(), []
    for count in (1, 2):
        faiss.omp_set_num_threads(count)
        pairs.append(candidates.voted(rows, 1))
    faiss.omp_set_num_threads(threads)
    assert len(pairs[0]) > 300 and np.array_equal(*pairs)
