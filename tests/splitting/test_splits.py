"""No lesion is in two parts, shares are kept, and nothing but ids, labels, seed and shares decides."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import REPOSITORY, change_params
from hypothesis import given
from hypothesis import strategies as st

from dermdistill import cli
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import load_split
from dermdistill.core.files import read_table
from dermdistill.errors import UserError
from dermdistill.splitting.split_audit import audit
from dermdistill.splitting.splits import (
    PARTS,
    assign,
    custom_assignment,
    duplicate_groups,
    folds,
    lesions_by_diagnosis,
    require_both_sides,
)
from stages import metadata as metadata_stage
from stages import split

SHARES = {"train": 0.7, "val": 0.15, "holdout": 0.15}


def table_of(lesions: list[tuple[str, int]], prefix: str = "L") -> pd.DataFrame:
    """One row an image, from (dx, number of images) of each lesion."""
    rows = [
        (f"{prefix}{number}_{view}", f"{prefix}{number}", dx, f"{prefix}{number}-{view}")
        for number, (dx, views) in enumerate(lesions)
        for view in range(views)
    ]
    return pd.DataFrame(rows, columns=["image_id", "lesion_id", "dx", "pixels_sha256"])


def audited(table: pd.DataFrame, assignment: dict[str, str]) -> dict[str, Any]:
    """The audit of tables that were written as ``assignment`` (lesion → part) says."""
    return audit(table, table.set_index("image_id")["lesion_id"].map(assignment), SHARES)


lesions = st.lists(st.tuples(st.sampled_from(CLASSES), st.integers(1, 4)), min_size=1, max_size=80)
seeds = st.integers(0, 2**32 - 1)
shares = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)).map(
    lambda parts: {name: part / sum(parts) for name, part in zip(PARTS, parts, strict=True)}
)


def sizes(table: pd.DataFrame, assignment: dict[str, str], dx: str) -> dict[str, int]:
    parts = [assignment[lesion] for lesion in lesions_by_diagnosis(table)[dx]]
    return {part: parts.count(part) for part in PARTS}


@given(lesions, seeds, shares)
def test_every_lesion_gets_one_part_and_each_diagnosis_its_share(
    drawn: list[tuple[str, int]], seed: int, wanted: dict[str, float]
) -> None:
    table = table_of(drawn)
    assignment = assign(table, wanted, seed)
    assert set(assignment) == set(table["lesion_id"]) and set(assignment.values()) <= set(PARTS)
    for dx in CLASSES:
        counts = sizes(table, assignment, dx)
        assert all(abs(counts[part] - wanted[part] * sum(counts.values())) < 1 for part in PARTS)
    metrics = audited(table, assignment)
    assert sum(metrics["images"].values()) == len(table) and sum(metrics["lesions"].values()) == len(drawn)


@given(lesions, seeds, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(drawn: list[tuple[str, int]], seed: int, random: object) -> None:
    table = table_of(drawn)
    order = list(range(len(table)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = table.iloc[order].reset_index(drop=True)
    assert assign(shuffled, SHARES, seed) == assign(table, SHARES, seed)


@given(lesions, lesions, seeds, seeds)
def test_an_assigned_lesion_never_moves_when_lesions_are_added(
    old: list[tuple[str, int]], new: list[tuple[str, int]], seed: int, other_seed: int
) -> None:
    first = table_of(old)
    before = assign(first, SHARES, seed)
    grown = pd.concat([table_of(new, "N"), first], ignore_index=True)
    after = assign(grown, SHARES, other_seed, before)
    assert {lesion: after[lesion] for lesion in before} == before
    assert set(after) == set(grown["lesion_id"])


@given(seeds)
def test_new_lesions_fill_the_emptiest_part(seed: int) -> None:
    table = table_of([("mel", 1)] * 100)
    lopsided = dict(zip(sorted(table["lesion_id"])[:40], ["train"] * 20 + ["val"] * 20, strict=True))
    added = {k: v for k, v in assign(table, SHARES, seed, lopsided).items() if k not in lopsided}
    # Of 100 the ideal is 70/15/15. Val has 20 already, so nobody joins it; train and holdout lack those 5 evenly.
    counts = {part: list(added.values()).count(part) for part in PARTS}
    assert counts["val"] == 0 and counts["train"] in (47, 48) and counts["holdout"] in (12, 13)


def test_a_diagnosis_seen_for_the_first_time_is_cut_like_a_fresh_split() -> None:
    before = assign(table_of([("nv", 1)] * 30), SHARES, 1)
    grown = pd.concat([table_of([("nv", 1)] * 30), table_of([("df", 2)] * 20, "D")])
    assert sizes(grown, assign(grown, SHARES, 1, before), "df") == {"train": 14, "val": 3, "holdout": 3}


def test_a_removed_lesion_leaves_the_assignment() -> None:
    before = assign(table_of([("nv", 1)] * 30), SHARES, 1)
    fewer = table_of([("nv", 1)] * 20)
    assert set(assign(fewer, SHARES, 1, before)) == set(fewer["lesion_id"])


def test_different_seeds_give_different_splits_and_the_same_seed_the_same() -> None:
    table = table_of([("nv", 2)] * 60)
    a, b, c, d = (assign(table, SHARES, seed) for seed in (0, 0, 1, 42))
    assert a == b and a != c and c != d and a != d


def test_the_assignment_is_the_one_published() -> None:
    """Pinned: a change of library or of the hash would silently reshuffle everybody's split."""
    assignment = assign(table_of([("mel", 1), ("nv", 1)] * 10), SHARES, 42)
    assert sorted(k for k, v in assignment.items() if v == "holdout") == ["L18", "L5"]


def test_a_lesion_with_conflicting_labels_counts_under_the_most_frequent_one() -> None:
    table = table_of([("nv", 3), ("bkl", 1)])
    table.loc[table["image_id"].isin(["L0_1", "L0_2"]), "dx"] = "mel"
    lesions = lesions_by_diagnosis(table)
    assert lesions["mel"] == ["L0"] and lesions["bkl"] == ["L1"] and lesions["nv"] == []
    assert audited(table, {"L0": "train", "L1": "val"})["lesions_with_conflicting_labels"] == 1


# --- duplicates, folds, somebody's own split --------------------------------------------------------------------

names = st.integers(0, 30).map(lambda number: f"L{number}")
joined = st.lists(st.tuples(names, names), max_size=12).map(
    lambda pairs: pd.DataFrame(pairs, columns=["lesion_a", "lesion_b"], dtype=str)
)


@given(lesions, joined, seeds)
def test_duplicates_are_in_one_part_of_a_fresh_split(
    drawn: list[tuple[str, int]], pairs: pd.DataFrame, seed: int
) -> None:
    table = table_of(drawn)
    groups = duplicate_groups(pairs)
    assignment = assign(table, SHARES, seed, groups=groups)
    assert set(assignment) == set(table["lesion_id"])
    for a, b in zip(pairs["lesion_a"], pairs["lesion_b"], strict=True):
        assert groups[a] == groups[b] <= min(a, b)
        assert a not in assignment or b not in assignment or assignment[a] == assignment[b]
    units = table.assign(lesion_id=table["lesion_id"].map(lambda name: groups.get(name, name)))
    parts = {groups.get(lesion, lesion): part for lesion, part in assignment.items()}
    for dx in CLASSES:  # shares are of groups
        counts = sizes(units, parts, dx)
        assert all(abs(counts[part] - SHARES[part] * sum(counts.values())) < 1 for part in PARTS)


@given(lesions, lesions, joined, seeds, seeds)
def test_duplicates_confirmed_later_move_lesions_only_to_a_more_exposed_part(
    old: list[tuple[str, int]], new: list[tuple[str, int]], pairs: pd.DataFrame, seed: int, other_seed: int
) -> None:
    first = table_of(old)
    before = assign(first, SHARES, seed)
    grown = pd.concat([table_of(new, "N"), first], ignore_index=True)
    among = pd.concat([pairs, pairs.assign(lesion_b=pairs["lesion_b"].str.replace("L", "N"))])  # old and new ones
    groups = duplicate_groups(among)
    after = assign(grown, SHARES, other_seed, before, groups)
    assert set(after) == set(grown["lesion_id"])
    for a, b in zip(among["lesion_a"], among["lesion_b"], strict=True):
        assert a not in after or b not in after or after[a] == after[b]
    for lesion, part in before.items():
        others = [before[other] for other in before if groups.get(other, other) == groups.get(lesion, lesion)]
        assert after[lesion] == min(others, key=PARTS.index)  # where it was, unless a duplicate is elsewhere
        assert PARTS.index(after[lesion]) <= PARTS.index(part)
    assert assign(grown, SHARES, seed, after, groups) == after


def test_a_duplicate_that_is_away_is_joined_all_the_same() -> None:
    """Otherwise it would come back in another part."""
    before = {"L0": "train", "L1": "holdout"}
    assert assign(table_of([("nv", 1)] * 2).tail(1), SHARES, 1, before, {"L0": "L0", "L1": "L0"}) == {"L1": "train"}


def test_without_duplicates_nothing_changes() -> None:
    table = table_of([("nv", 2), ("mel", 1)] * 40)
    assert assign(table, SHARES, 42, groups={}) == assign(table, SHARES, 42)


@given(lesions, joined, seeds, st.integers(2, 7))
def test_folds_are_even_and_no_lesion_or_duplicate_is_in_two(
    drawn: list[tuple[str, int]], pairs: pd.DataFrame, seed: int, count: int
) -> None:
    table, groups = table_of(drawn), duplicate_groups(pairs)
    fold_of = folds(table, count, seed, groups)
    assert set(fold_of) == set(table["lesion_id"]) and set(fold_of.values()) <= set(range(count))
    for a, b in zip(pairs["lesion_a"], pairs["lesion_b"], strict=True):
        assert a not in fold_of or b not in fold_of or fold_of[a] == fold_of[b]
    units = {groups.get(lesion, lesion): fold for lesion, fold in fold_of.items()}
    counts = [list(units.values()).count(fold) for fold in range(count)]
    assert max(counts) - min(counts) <= 1
    for dx in CLASSES:
        grouped = table.assign(lesion_id=table["lesion_id"].map(lambda name: groups.get(name, name)))
        dealt = [units[name] for name in lesions_by_diagnosis(grouped)[dx]]
        assert max(map(dealt.count, range(count))) - min(map(dealt.count, range(count))) <= 1


def test_somebodys_own_split_is_by_lesion_or_by_image() -> None:
    table = table_of([("nv", 2), ("mel", 1), ("df", 1)])
    by_lesion = pd.DataFrame({"lesion_id": ["L0", "L1", "L2"], "part": ["val", "train", "holdout"]})
    wanted = {"L0": "val", "L1": "train", "L2": "holdout"}
    assert custom_assignment(by_lesion, table) == wanted
    by_image = table.assign(part=table["lesion_id"].map(wanted))[["image_id", "part"]]
    assert custom_assignment(by_image.drop(index=1), table) == wanted  # one image of L0 is enough
    for faulty, says in (
        (by_image.assign(part=["val", "train", "train", "holdout"]), r"several parts \(L0\)"),
        (by_lesion.head(2), r"leaves out 1 lesions of the data \(L2\)"),
        (by_lesion.assign(part=["val", None, "test"]), r"knows the parts '', 'test', which are none of"),
        (by_lesion.assign(lesion_id=["L0", "L1", "L9"]), r"names 1 lesion_ids that the data lack \(L9\)"),
        (by_lesion.assign(part="test"), r"knows the parts 'test', which are none of train, val, holdout"),
    ):
        with pytest.raises(ValueError, match=says):
            custom_assignment(faulty, table)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (["train", "train", "train", "train", "holdout", "holdout"], "puts no image into val"),
        (["train", "train", "val", "holdout", "holdout", "holdout"], "puts no melanoma into val"),
        (["val", "train", "val", "val", "holdout", "holdout"], "puts nothing but melanoma into train"),
    ],
)
def test_a_split_that_nobody_can_judge_is_refused(parts: list[str], says: str) -> None:
    table = table_of([("nv", 1), ("mel", 2), ("df", 1), ("mel", 1), ("bkl", 1), ("mel", 1)])
    lesions = {f"L{number}": part for number, part in enumerate(parts)}
    require_both_sides(dict(zip(lesions, ["train", "train", "val", "val", "holdout", "holdout"], strict=True)), table)
    with pytest.raises(ValueError, match=says):
        require_both_sides(lesions, table)


def test_the_audit_names_duplicates_in_several_parts() -> None:
    table = table_of([("nv", 2), ("mel", 1), ("df", 1)])
    pairs = pd.DataFrame({"lesion_a": ["L0", "L0", "L2"], "lesion_b": ["L1", "L2", "L0"]})  # two photographs of a pair
    parts = table.set_index("image_id")["lesion_id"].map({"L0": "train", "L1": "train", "L2": "val"})
    metrics = audit(table, parts, SHARES, pairs)
    assert metrics["duplicate_lesions"] == 2 and metrics["duplicate_lesions_in_several_parts"] == 1
    assert metrics["crossing_duplicate_lesions"] == ["L0 train / L2 val"]


# --- the audit --------------------------------------------------------------------------------------------------


def test_the_audit_counts_identical_pixels_across_parts_only() -> None:
    table = table_of([("nv", 2), ("mel", 1), ("df", 1)])
    assignment = {"L0": "train", "L1": "val", "L2": "train"}
    assert audited(table, assignment)["identical_images_in_several_parts"] == 0
    table.loc[3, "pixels_sha256"] = table["pixels_sha256"][0]  # L2 and L0, both in train
    assert audited(table, assignment)["identical_images_in_several_parts"] == 0
    table.loc[2, "pixels_sha256"] = table["pixels_sha256"][0]  # L1 is in val
    assert audited(table, assignment)["identical_images_in_several_parts"] == 1


def test_the_audit_counts_a_lesion_that_crosses_and_an_image_that_was_lost() -> None:
    table = table_of([("nv", 2), ("mel", 3)])
    parts = pd.Series("train", index=table["image_id"])
    assert audit(table, parts, SHARES)["lesions_in_several_parts"] == 0
    parts["L1_2"] = "holdout"
    assert audit(table, parts, SHARES)["lesions_in_several_parts"] == 1
    assert audit(table, parts.drop("L0_0"), SHARES)["images_in_no_part"] == 1


def test_the_audit_counts_what_a_split_by_image_would_have_leaked() -> None:
    single = audited(table_of([("nv", 1)] * 50), dict.fromkeys((f"L{i}" for i in range(50)), "train"))
    several = audited(table_of([("nv", 4)] * 50), dict.fromkeys((f"L{i}" for i in range(50)), "train"))
    assert single["leaked_lesions_if_split_by_image"] == 0
    assert several["leaked_lesions_if_split_by_image"] > 25  # 1 − Σ share⁴ ≈ 76 % of 50


def test_the_audits_hash_is_of_the_assignment() -> None:
    table = table_of([("nv", 1), ("mel", 1)])
    one, two = {"L0": "train", "L1": "val"}, {"L0": "val", "L1": "train"}
    assert audited(table, one)["sha256"] == audited(table, dict(reversed(one.items())))["sha256"]
    assert audited(table, one)["sha256"] != audited(table, two)["sha256"]


# --- the stage --------------------------------------------------------------------------------------------------


def written(folder: Path) -> dict[str, str]:
    """Image id → part; fails if an image or a lesion stands in two parts."""
    tables = [pd.read_csv(folder / f"data/splits/{part}.csv", dtype=str).assign(part=part) for part in PARTS]
    table = pd.concat(tables)
    assert not table["image_id"].duplicated().any()
    assert table.groupby("lesion_id")["part"].nunique().max() == 1
    return dict(zip(table["image_id"], table["part"], strict=True))


def by_lesion(folder: Path) -> dict[str, str]:
    table = pd.read_csv(folder / "data/prepared/metadata.csv", dtype=str)
    return dict(zip(table["lesion_id"], table["image_id"].map(written(folder)), strict=True))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "data/splits").iterdir()}


def test_the_stage_gives_every_image_one_part_and_reports_no_leak(project: Path) -> None:
    metadata = pd.read_csv("data/prepared/metadata.csv", dtype=str)
    assert set(written(project)) == set(metadata["image_id"])
    metrics = json.loads(Path("metrics/split.json").read_text())
    assert metrics["lesions_in_several_parts"] == metrics["identical_images_in_several_parts"] == 0
    assert sum(metrics["images"].values()) == len(metadata)
    for part in PARTS:
        table = pd.read_csv(f"data/splits/{part}.csv", dtype=str)
        merged = table.merge(metadata, on=["image_id", "lesion_id", "dx", "dx_type"])
        assert len(merged) == len(table) == metrics["images"][part]


def test_ids_are_text_whatever_they_look_like(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metadata = pd.read_csv("data/prepared/metadata.csv", dtype=str, keep_default_na=False)
    odd = {"image_id": ["NA", "null", "0012", "12"], "lesion_id": ["nan", "None", "007", "7"]}
    for column, names in odd.items():
        new = dict(zip(metadata.drop_duplicates("lesion_id")[column], names, strict=False))
        metadata[column] = metadata[column].replace(new)
    metadata.to_csv("data/prepared/metadata.csv", index=False)
    Path("data/splits/assignment.json").unlink()
    split.main()
    parts = [load_split(part) for part in PARTS]
    assert set(odd["image_id"]) < {name for part in parts for name in part.image_id}
    assert set(odd["lesion_id"]) < {name for part in parts for name in part.lesion_id}
    assert sorted(row for part in parts for row in part.rows) == list(range(len(metadata)))
    assert json.loads(Path("metrics/split.json").read_text())["lesions_in_several_parts"] == 0
    metadata_stage.main()
    judging = sorted(name for part in parts[1:] for name in part.image_id)
    table = pd.read_csv("data/patient_metadata.csv", dtype=str, keep_default_na=False)
    assert table["image_id"].tolist() == judging
    theirs = {name: part for part, split in zip(PARTS, parts, strict=True) for name in split.image_id}
    metadata[["image_id"]].assign(part=metadata["image_id"].map(theirs)).to_csv("mine.csv", index=False)
    cli.main(["split", "mine.csv"])
    assert f"{metadata['lesion_id'].nunique():,} lesions" in capsys.readouterr().out


def test_the_stage_keeps_a_committed_assignment(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(project)
    split.main()
    assert files(project) == before and "60 lesions: 0 newly assigned, 0 moved" in capsys.readouterr().out
    # A committed assignment that no seed would give: two lesions have changed places.
    path = Path("data/splits/assignment.json")
    content = json.loads(path.read_text())
    lesions = content["lesions"]
    a, b = (next(lesion for lesion, part in lesions.items() if part == name) for name in ("train", "val"))
    lesions[a], lesions[b] = "val", "train"
    path.write_text(json.dumps(content))
    plain = written(project)
    split.main()
    swapped = written(project)
    changed = {image for image in plain if plain[image] != swapped[image]}
    metadata = pd.read_csv("data/prepared/metadata.csv", dtype=str)
    assert changed == set(metadata["image_id"][metadata["lesion_id"].isin([a, b])])
    split.main()
    assert written(project) == swapped


def test_the_stage_keeps_old_lesions_when_the_data_grow(project: Path) -> None:
    metadata = pd.read_csv("data/prepared/metadata.csv", dtype=str)
    few = metadata[metadata["lesion_id"].isin(sorted(metadata["lesion_id"].unique())[::2])]
    few.to_csv("data/prepared/metadata.csv", index=False)
    shutil.rmtree("data/splits")
    split.main()
    before = written(project)
    metadata.to_csv("data/prepared/metadata.csv", index=False)
    split.main()
    after = written(project)
    assert len(after) > len(before) and {image: after[image] for image in before} == before


def test_the_stage_keeps_lesions_that_were_away_for_a_while(project: Path) -> None:
    before = written(project)
    metadata = pd.read_csv("data/prepared/metadata.csv", dtype=str)
    metadata.sample(frac=0.3, random_state=0).to_csv("data/prepared/metadata.csv", index=False)
    split.main()
    assert len(written(project)) < len(before)
    metadata.to_csv("data/prepared/metadata.csv", index=False)
    split.main()
    assert written(project) == before


@pytest.mark.parametrize("change", [{"split.seed": 7}, {"split.val": 0.3}])
def test_the_stage_makes_a_fresh_split_when_its_parameters_change(project: Path, change: dict[str, float]) -> None:
    before = written(project)
    change_params(project, change)
    split.main()
    fresh = files(project)
    assert written(project) != before
    shutil.rmtree("data/splits")
    split.main()
    assert files(project) == fresh  # nothing of the old assignment is in it


def test_the_stage_adds_folds_if_folds_is_set_and_moves_no_lesion(project: Path) -> None:
    before = written(project)
    change_params(project, {"split.folds": 4})
    split.main()
    assert written(project) == before
    pooled = pd.concat([pd.read_csv(f"data/splits/{part}.csv") for part in ("train", "val")])
    assert set(pooled["fold"]) == {0, 1, 2, 3} and pooled.groupby("lesion_id")["fold"].nunique().max() == 1
    assert "fold" not in pd.read_csv("data/splits/holdout.csv")


def test_a_frozen_split_stays_whatever_the_parameters_and_refuses_new_lesions(project: Path) -> None:
    metadata = pd.read_csv("data/prepared/metadata.csv", dtype=str)
    lesions = sorted(metadata["lesion_id"].unique())
    wanted = dict(zip(lesions, (["train"] * 4 + ["val", "holdout"]) * len(lesions), strict=False))
    pd.DataFrame(wanted.items(), columns=["lesion_id", "part"]).to_csv("mine.csv", index=False)
    cli.main(["split", "mine.csv"])
    change_params(project, {"split.seed": 7, "split.val": 0.3})
    split.main()
    assert written(project) == {
        image: wanted[lesion] for image, lesion in zip(metadata["image_id"], metadata["lesion_id"], strict=True)
    }
    grown = metadata.iloc[:1].assign(image_id="ISIC_1", lesion_id="HAM_NEW")
    pd.concat([metadata, grown]).to_csv("data/prepared/metadata.csv", index=False)
    with pytest.raises(UserError, match=r"the given split in .* lacks 1 lesions \(HAM_NEW\)"):
        split.main()


def write_duplicates(folder: Path, *parts: str) -> tuple[str, ...]:
    """Write a table of duplicates that joins one lesion of each of ``parts``, which it returns."""
    metadata = pd.read_csv("data/prepared/metadata.csv", dtype=str)
    side = metadata.set_index("lesion_id")["image_id"].map(written(folder))
    names = tuple(side.index[side == part][0] for part in parts)
    pairs = pd.DataFrame({"lesion_a": names[:-1], "lesion_b": names[1:]})
    pairs.to_csv("data/audit/duplicates.csv", index=False)
    return names


def test_duplicates_in_several_parts_of_a_committed_assignment_join_its_most_exposed_one(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = by_lesion(project)
    a, b = write_duplicates(project, "holdout", "val")
    split.main()
    assert by_lesion(project) == before | {a: "val"} and before[b] == "val"
    metrics = json.loads(Path("metrics/split.json").read_text())
    assert metrics["duplicate_lesions"] == 1 and metrics["crossing_duplicate_lesions"] == []
    assert "0 newly assigned, 1 moved to join a duplicate" in capsys.readouterr().out
    pd.DataFrame(columns=["lesion_a", "lesion_b"]).to_csv("data/audit/duplicates.csv", index=False)
    split.main()
    assert by_lesion(project) == before | {a: "val"}  # what was seen once is not unseen when the audit forgets it


def test_a_frozen_split_is_kept_and_its_duplicates_are_named(project: Path) -> None:
    before = by_lesion(project)
    pd.DataFrame(before.items(), columns=["lesion_id", "part"]).to_csv("mine.csv", index=False)
    cli.main(["split", "mine.csv"])
    a, b = write_duplicates(project, "train", "val")
    change_params(project, {"split.folds": 5})
    split.main()
    assert by_lesion(project) == before
    metrics = json.loads(Path("metrics/split.json").read_text())
    named = sorted((f"{a} train", f"{b} val"))
    assert metrics["crossing_duplicate_lesions"] == [" / ".join(named)]
    assert metrics["duplicate_lesions_in_several_parts"] == 1
    pooled = pd.concat([pd.read_csv(f"data/splits/{part}.csv") for part in ("train", "val")])
    assert pooled["fold"][pooled["lesion_id"].isin([a, b])].nunique() == 1  # folds pool train and val, and are ours


def test_a_split_by_image_in_its_publishers_words_is_used_and_one_without_val_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = read_table("data/prepared/metadata.csv")
    before = by_lesion(project)
    theirs = table["lesion_id"].map(before).replace("holdout", "test")
    pd.DataFrame({"split": theirs, "image": table["image_id"] + ".jpg"}).to_csv("theirs.tsv", sep="\t", index=False)
    cli.main(["split", "theirs.tsv"])
    assignment = Path("data/splits/assignment.json").read_bytes()
    assert json.loads(assignment)["lesions"] == before
    pd.DataFrame({"split": theirs.replace("val", "train"), "image": table["image_id"]}).to_csv(
        "no_val.csv", index=False
    )
    with pytest.raises(SystemExit):
        cli.main(["split", "no_val.csv"])
    assert "error: no_val.csv puts no image into val" in capsys.readouterr().err
    assert Path("data/splits/assignment.json").read_bytes() == assignment


def test_the_committed_split_of_the_repository_has_no_crossing_lesion() -> None:
    folder = REPOSITORY / "data/splits"
    parts = written(REPOSITORY)
    tables = {part: pd.read_csv(folder / f"{part}.csv", dtype=str) for part in PARTS}
    lesions_of = {part: table.groupby("dx")["lesion_id"].nunique() for part, table in tables.items()}
    counts = pd.DataFrame(lesions_of).fillna(0)
    settings = json.loads((folder / "assignment.json").read_text())["settings"]
    total = counts.sum(axis=1)
    for part in (
        "val",
        "holdout",
    ):  # a fresh split is off by less than one lesion; duplicates that joined train add to it
        assert (np.abs(counts[part] - settings[part] * total) < 1.01 + 0.01 * total).all()
    assert set(counts.index) == set(CLASSES) and len(parts) == sum(map(len, tables.values()))
