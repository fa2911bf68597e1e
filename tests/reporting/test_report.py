"""The page on a synthetic project: self-contained, complete, escaped, and honest about ties."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import edit
from markupsafe import escape

from dermdistill import params
from dermdistill.core.files import read_json
from dermdistill.errors import UserError
from dermdistill.evaluation import bootstrap, cases, model_pairs, weighted_metrics
from dermdistill.reporting import (
    data_figures,
    error_figures,
    figures,
    model_figures,
    readme,
    render,
    report,
    results,
    tables,
)
from dermdistill.reporting.results import Comparison, Results

RESULTS = "docs/tables/results.md"


def load(root: Path) -> Results:
    return results.load(root, params.load(root / "params.yaml"))


class Page(HTMLParser):
    """Every tag with its attributes, and whether tags nest."""

    VOID = ("meta", "img", "link", "br", "hr", "input", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read_page(root: Path) -> tuple[str, Page]:
    text = (root / "reports/report.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_page_fetches_nothing_and_runs_only_its_own_script(pristine: Path) -> None:
    text, page = read_page(pristine)
    assert not page.open and len(text) < 10_000_000
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object")
        assert tag != "script" or not attributes
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name) or ""
            assert tag == "a" or not value or value.startswith("data:image/"), (tag, value[:80])
    assert text.count("<script>") == 1
    script = text[text.index("<script>") + 8 : text.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv"))
    assert f"script-src 'sha256-{digest}'" in (policy or "") and "default-src 'none'" in (policy or "")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style


def test_page_is_accessible(pristine: Path) -> None:
    _, page = read_page(pristine)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) > 10 and all(len(image.get("alt") or "") > 20 for image in images)
    anchors = {attributes.get("id") for _, attributes in page.tags}
    links = [attributes["href"] or "" for tag, attributes in page.tags if tag == "a"]
    assert all(link[1:] in anchors for link in links if link.startswith("#"))
    assert [attributes.get("lang") for tag, attributes in page.tags if tag == "html"] == ["en"]


def test_page_shows_every_model_limits_and_licence(pristine: Path) -> None:
    text, _ = read_page(pristine)
    plain = text.replace("<wbr>", "")
    for model in params.load(pristine / "params.yaml").model_ids():
        assert plain.count(model) >= 4
    assert re.search(r"onnx_int8.*4\.00.*98\.7 %", plain, re.S) and "1.72 ×" in plain and "98.7 %" in plain
    for phrase in ("10.1038/sdata.2018.161", "CC BY-NC 4.0", "Not a medical device", "no skin tone", "Tschandl"):
        assert phrase in text
    assert "mean nothing medically" not in text


def test_phantom_is_called_a_phantom(report_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.style, "save", lambda *args: None)  # those of the copy remain
    for path in (report_copy / "predictions/holdout").iterdir():
        path.write_text(path.read_text().replace("HAM_00", "HAM_9"))
    report.build(report_copy, params.load(report_copy / "params.yaml"))
    assert "<strong>These numbers mean nothing medically" in (report_copy / "reports/report.html").read_text()


def test_same_inputs_same_bytes_and_stray_files_are_ignored(report_copy: Path, pristine: Path) -> None:
    shutil.copy(report_copy / "metrics/val/teacher_lite0.json", report_copy / "metrics/val/teacher_old.json")
    report.build(report_copy, params.load(report_copy / "params.yaml"))
    for name in ("reports/report.html", "metrics/summary.json", RESULTS, "plots/figures/roc.png"):
        assert (report_copy / name).read_bytes() == (pristine / name).read_bytes(), name


def test_missing_metrics_are_one_sentence(report_copy: Path) -> None:
    (report_copy / "metrics/holdout/control_tiny_s0.json").unlink()
    with pytest.raises(UserError, match=r"control_tiny_s0\.json does not exist"):
        report.build(report_copy, params.load(report_copy / "params.yaml"))


def test_undefined_metrics_are_dashes_and_text_is_escaped(report_copy: Path) -> None:
    for part in ("val", "holdout"):
        path = report_copy / f"metrics/{part}/int8_tiny_s0.json"
        edit(path, ["melanoma", "histology", "roc_auc"], None)
        edit(path, ["intervals", "melanoma.histology.roc_auc"], None)
        edit(path, ["operating_points", "sensitivity", "ppv"], None)
    edit(report_copy / "metrics/prepare.json", ["files_without_a_row"], ["<script>alert(1)</script>"])
    report.build(report_copy, params.load(report_copy / "params.yaml"))
    text, _ = read_page(report_copy)
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    row = next(line for line in (report_copy / RESULTS).read_text().splitlines() if "**`int8_tiny_s0`**" in line)
    assert row.split("|")[5].strip() == "–"


def test_the_readme_has_a_row_per_model_and_the_metrics_numbers(pristine: Path) -> None:
    settings = params.load(pristine / "params.yaml")
    first = (pristine / RESULTS).read_text().split("\n\n")[0]
    lines = first.splitlines()
    rows = {line.split("|")[1].strip(" *`"): line for line in lines[2:] if line.startswith("|")}
    assert list(rows) == model_pairs.published(pristine, settings)
    assert len({line.count("|") for line in [lines[0], lines[1], *rows.values()]}) == 1
    metrics = read_json(pristine / "metrics/holdout/student_tiny_s0.json")
    low, high = metrics["intervals"]["melanoma.roc_auc"]
    assert f"{metrics['melanoma']['roc_auc']:.3f} [{low:.3f}, {high:.3f}]" in rows["student_tiny_s0"]


def test_summary_follows_the_contract(pristine: Path) -> None:
    content = json.loads((pristine / "metrics/summary.json").read_text())
    keys, sides = {"melanoma_roc_auc", "macro_f1"}, {"val", "holdout", "derm7pt/other_val", "derm7pt/other_test"}
    assert all(set(parts) == sides for parts in content.values())
    assert all(set(parts[part]) == keys for parts in content.values() for part in parts)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(-0.01, 0.02, "a tie"), (0.0, 0.02, "a tie"), (0.001, 0.02, "better"), (-0.02, -0.001, "worse")],
)
def test_a_winner_needs_an_interval_without_zero(low: float, high: float, word: str) -> None:
    one = Comparison("student_x_s0", "control_x_s0", (low + high) / 2, low, high, 0.043)
    sentence = render.words("verdict", one=one)
    assert [verdict for verdict in ("a tie", "better", "worse") if verdict in sentence] == [word]
    assert sentence.endswith("; 80 % power to detect 0.043).") == (word == "a tie")
    assert ("+" in sentence) == (one.difference >= 0), "a difference bears its sign"
    assert render.words("verdict", one=one, quote="`").startswith("`student_x_s0` ")


def test_comparison_of_a_model_that_lost_its_skill_is_no_tie(report_copy: Path) -> None:
    path = report_copy / "predictions/holdout/control_tiny_s0.csv"
    table = pd.read_csv(path)
    columns = [name for name in table if str(name).startswith("p_")]
    table[columns] = np.random.default_rng(0).permutation(table[columns].to_numpy())
    table.to_csv(path, index=False)
    settings = params.load(report_copy / "params.yaml")
    first = results.comparisons(model_pairs.compare_models(report_copy, settings), settings)[0]
    assert "student_tiny is better than control_tiny" in render.words("verdict", one=first)


@pytest.mark.parametrize(
    ("interval", "word"),
    [([0.8, 0.94], "short of"), ([0.9, 0.97], "compatible"), ([0.96, 1.0], "above"), (None, "")],
)
def test_target_sentence_is_computed(interval: list[float] | None, word: str) -> None:
    words = ("short of", "compatible", "above")
    sentence = render.words("target", aim=0.95, reached=0.93, pair=interval)
    assert "sensitivity of 0.95" in sentence and "it reached 0.930" in sentence
    assert [one for one in words if one in sentence] == ([word] if interval else [])


def test_seeds_are_summarised_only_when_there_are_several(pristine: Path) -> None:
    compared = read_json(pristine / "metrics/compare/models.json")
    assert tables.seeds_table(compared).rows == []
    row = {"seeds": 3, "mean": 0.9, "sd": 0.01, "low": 0.87, "high": 0.93}
    compared["families"]["student_tiny"] = dict.fromkeys(model_pairs.METRICS, row)
    table = tables.seeds_table(compared)
    assert [line[0].value for line in table.rows] == ["student_tiny"]
    assert table.rows[0][2] == render.Cell("0.900 ± 0.010", "0.870 to 0.930")


def test_pairs_are_the_ones_that_matter(pristine: Path) -> None:
    settings = params.load(pristine / "params.yaml")
    found = model_pairs.pairs(settings, model_pairs.published(pristine, settings))
    for pair in ("student_tiny control_tiny", f"int8_tiny {settings.teacher_id}", "int8_tiny baseline_logistic"):
        assert tuple(pair.split()) in found
    assert len(found) == len(set(found)) and all(a != b for a, b in found)
    seeded = model_pairs.families(["teacher_a", "student_b_s0", "student_b_s1", "baseline_svm"])
    assert seeded == {
        "teacher_a": ["teacher_a"],
        "student_b": ["student_b_s0", "student_b_s1"],
        "baseline_svm": ["baseline_svm"],
    }


def test_every_pair_is_shown_with_the_verdict_of_its_interval(pristine: Path) -> None:
    compared = read_json(pristine / "metrics/compare/models.json")
    table = tables.pairs_table(compared, "holdout")
    assert set(model_pairs.METRICS.values()) - set(table.head) == {"melanoma ROC-AUC"}, "whose column is A − B"
    assert len(table.rows) == len(compared["pairs"])
    for row, pair in zip(table.rows, compared["pairs"], strict=True):
        gap = pair["metrics"]["melanoma.roc_auc"]
        tie = gap["low"] <= 0 <= gap["high"]
        assert row[2].value == ("a tie" if tie else "A is better" if gap["difference"] > 0 else "A is worse")
    settings = params.load(pristine / "params.yaml")
    evaluated = cases.evaluate_roles(pristine, cases.roles(settings))
    sides = evaluated["student"], evaluated["control"]
    a, b = (weighted_metrics.roc_auc(side.predictions.melanoma, side.p_melanoma) for side in sides)
    numbers = settings.evaluate.bootstrap, settings.evaluate.seed
    wanted = bootstrap.paired_difference(b, a, sides[0].predictions.lesion_id, *numbers)  # a minus b
    first = results.comparisons(compared, settings)[0]
    assert (first.difference, first.low, first.high) == pytest.approx(wanted, abs=1e-6)


def test_every_table_is_complete_and_on_the_page(pristine: Path) -> None:
    stages = results.load_stages(pristine, params.load(pristine / "params.yaml"))
    of_models, of_stages = tables.tables(load(pristine)), tables.stage_tables(stages)
    every = [table for table in of_models.values() if table.rows]
    every += [table for some in of_stages.values() for table in some]
    assert len(every) > 25
    for table in every:
        assert table.rows and all(len(row) == len(table.head) for row in table.rows), table.caption
    _, page = read_page(pristine)
    shown = [attributes["aria-label"] for tag, attributes in page.tags if attributes.get("class") == "scroll"]
    assert sorted(table.caption for table in every) == sorted(map(str, shown))


def test_every_description_of_a_table_has_a_caption_and_is_used(pristine: Path) -> None:
    described = set(render.descriptions()) - {"labels"}
    words = render.environment(html=False).get_template("words.j2").module
    assert {name for name in described if not hasattr(words, name)} == set()
    code = "".join(path.read_text() for path in Path(render.__file__).parent.glob("*.py"))
    assert {name for name in described if not re.search(rf'table\(\s*"{name}"', code)} == set()


def test_every_section_is_in_the_contents_and_has_something_to_show(pristine: Path) -> None:
    text, page = read_page(pristine)
    files = {path.name.removesuffix(".html.j2") for path in (render.TEMPLATES / "sections").iterdir()}
    ids = [attributes["aria-labelledby"] for tag, attributes in page.tags if "aria-labelledby" in attributes]
    assert set(ids) == files and len(ids) == len(files) > 10
    for name in files:
        section = text.split(f'<section aria-labelledby="{name}">')[1].split("</section>")[0]
        assert "<table>" in section or "<img" in section, name
        assert f'<a href="#{name}">' in text


def test_every_figure_drawn_is_on_the_page_or_one_of_a_family(pristine: Path) -> None:
    text, _ = read_page(pristine)
    drawn = figures.draw(pristine, load(pristine)) | model_figures.draw(load(pristine))
    for name in drawn:
        there = report.picture(pristine / f"plots/figures/{name}.png") in text
        assert there != name.startswith("training/"), name
    files = (pristine / "plots/figures").rglob("*.png")
    assert {path.relative_to(pristine / "plots/figures").as_posix()[:-4] for path in files} == set(drawn)


def test_the_page_names_every_case_and_every_picture_of_the_other_stages() -> None:
    kinds = render.environment(html=True).get_template("cases.html.j2").make_module({"case_ids": {}}).kinds
    assert tuple(kinds) == cases.KINDS
    for section, names in (
        ("errors", error_figures.FIGURES),
        ("data", data_figures.FIGURES + data_figures.PICTURES),
    ):
        text = (render.TEMPLATES / f"sections/{section}.html.j2").read_text()
        assert [name for name in names if f'("{name}", ' not in text] == []


def test_robustness_is_shown(pristine: Path) -> None:
    assert "five severities" in (pristine / "reports/report.html").read_text()
    assert (pristine / "plots/figures/robustness.png").exists()


def test_mirror_images_are_mentioned_only_where_teachers_predict_them(pristine: Path) -> None:
    models = load(pristine).robustness
    captions = [tables.robustness_table(models, mirrored).caption for mirrored in (True, False)]
    assert ["mirror" in caption for caption in captions] == [True, False]


def test_markers(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    start, end = readme.markers("results")
    document.write_text(f"before\n{start}\nold\n{end}\nafter\n")
    for _ in range(2):  # the second time changes nothing
        readme.insert(document, "results", "| new |\n")
        assert document.read_text() == f"before\n{start}\n| new |\n{end}\nafter\n"
    for broken in ("no markers", f"{end}\n{start}", f"{start}{start}{end}"):
        document.write_text(broken)
        with pytest.raises(UserError, match="needs one line"):
            readme.insert(document, "results", "| new |\n")
        assert document.read_text() == broken
    with pytest.raises(UserError, match="does not exist"):
        readme.insert(tmp_path / "none.md", "results", "| new |\n")


def test_a_table_in_markdown_says_what_the_page_says(pristine: Path) -> None:
    of_models, benchmark = load(pristine), read_json(pristine / "metrics/benchmark.json")
    texts = readme.texts(of_models, benchmark)
    assert set(texts) == {name for names in readme.DOCUMENTS.values() for name in names}
    for name, text in texts.items():
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert name == "card_robustness" or (rows and len({row.count("|") for row in rows[:3]}) == 1), name
    auc = of_models.holdout["int8_tiny_s0"]["melanoma"]["roc_auc"]
    assert f"| melanoma ROC-AUC | {auc:.3f} [" in texts["card_metrics"]
    page = read_page(pristine)[0].replace("<wbr>", "")
    for line in texts["card_subgroups"].splitlines()[2:8]:  # the same values, formatted alike
        _, _, name, counts, auc_there, *_ = (part.strip() for part in line.split("|"))
        cells = f"{escape(name)}</td><td>{counts}</td><td>{auc_there.split(' [')[0]}<"
        assert cells in page, line
    assert "ResNet-50" in texts["published"] and f"| here: `int8_tiny_s0` | {auc:.3f} [" in texts["published"]


def test_the_headline_has_a_row_for_each_role_and_a_verdict_for_teacher_and_network(pristine: Path) -> None:
    of_models, benchmark = load(pristine), read_json(pristine / "metrics/benchmark.json")
    benchmark["latency"]["1 thread, batch 1"]["int8_tiny_s0 onnx_int8"] = {"cpu_p50": 1.5}
    rows = readme.headline_table(of_models, benchmark, "baseline_logistic").rows
    columns = [[cell.value for cell in column] for column in zip(*rows, strict=True)]
    roles, models, aucs, megabytes, times, _, other_test = columns
    assert roles == list(render.labels("roles").values())
    assert models[1:5] == ["student_tiny", "control_tiny", "int8_tiny_s0", "baseline_logistic"]
    for row, model in ((3, "int8_tiny_s0"), (4, "baseline_logistic")):
        assert aucs[row] == f"{of_models.holdout[model]['melanoma']['roc_auc']:.3f}"
    mean = of_models.compared["families"]["student_tiny"]["melanoma.roc_auc"]
    assert rows[1][2] == render.estimate(mean["mean"], (mean["low"], mean["high"]))
    assert megabytes == ["4.0"] * 4 + ["–"] * 2 and times == ["8.0", "2.0", "2.0", "1.5", "–", "–"]
    other = of_models.others["other/derm7pt/other_test"].models["int8_tiny_s0"]
    assert other_test[3] == f"{other['melanoma']['roc_auc']:.3f}" and other_test[-1] == "–"
    assert aucs[-1] == "0.921, own test set" and models[-1] == "MobileNetV3-Small", "the best of theirs"


def test_the_best_baseline_is_chosen_on_val(pristine: Path) -> None:
    of_models = load(pristine)
    better = {"raw": {"melanoma_roc_auc": 0.99}}
    chosen = readme.best_baseline(of_models._replace(val=of_models.val | {"baseline_svm": better}))
    assert chosen == "baseline_svm" and readme.best_baseline(of_models) == "baseline_logistic"
    assert readme.best_baseline(of_models._replace(val={})) is None


@pytest.mark.parametrize(
    ("verdict", "difference", "says"),
    [
        ("tie", 0.01, r"^Distillation added nothing that can be told from chance: student minus control is \+0.010 "),
        ("better", 0.03, r"^Distillation helped: .* \+0.030 in melanoma AUC \(95 % interval 0.010 to 0.050\)\.$"),
        ("worse", -0.03, r"^Distillation did harm: .* −0.030 "),
        ("undefined", None, r"^Whether distillation helped cannot be said"),
    ],
)
def test_what_distillation_added_in_words(verdict: str, difference: float | None, says: str) -> None:
    gap = {"verdict": verdict, "difference": difference, "low": 0.01, "high": 0.05}
    assert re.match(says, render.words("added", auc=gap))
    assert ("cannot be said" in render.words("needed", auc=gap, accuracy=gap)) == (difference is None)


def test_cases_are_what_their_kind_says(pristine: Path) -> None:
    roles = cases.roles(params.load(pristine / "params.yaml"))
    evaluated = cases.evaluate_roles(pristine, {role: roles[role] for role in ("teacher", "student", "int8")})
    picked = cases.pick(evaluated, high_confidence=0.6, count=5)
    assert set(picked["kind"]) <= set(cases.KINDS) and picked.groupby("kind").size().max() <= 5
    a, b = evaluated["teacher"].threshold, evaluated["int8"].threshold
    missed, alarms = picked[picked["kind"] == "missed_melanoma"], picked[picked["kind"] == "false_alarm"]
    assert (missed["dx"] == "mel").all() and ((missed["p_mel_teacher"] < a) & (missed["p_mel_int8"] < b)).all()
    assert len(alarms) and (alarms["dx"] != "mel").all() and (alarms["p_mel_int8"] >= b).all()
    only = picked[picked["kind"] == "only_a"]
    assert (only["diagnosis_teacher"] == only["dx"]).all() and (only["diagnosis_int8"] != only["dx"]).all()


def test_the_views_of_agreement_count_the_same_images(pristine: Path) -> None:
    roles = cases.roles(params.load(pristine / "params.yaml"))
    evaluated = cases.evaluate_roles(pristine, {role: roles[role] for role in ("teacher", "student", "int8")})
    found = cases.agreement(evaluated, 0.6)
    for view in ("melanoma", "melanoma_diagnosed", "diagnosis"):
        for pair in found[view].values():
            assert pair["agree"] + pair["disagree"] == pair["total"] == len(evaluated["teacher"].predictions)
            parts = ("both_correct", "only_a", "only_b", "both_wrong")
            assert sum(pair[key] for key in parts) == pair["total"]
            assert pair["a_correct"] == pair["both_correct"] + pair["only_a"]
    binary = found["melanoma_diagnosed"]["teacher_int8"]
    assert binary["only_a"] + binary["only_b"] == binary["disagree"]  # of two answers one is right
    confusion = cases.confusions(evaluated)
    hits = confusion[confusion["actual"] == confusion["predicted"]].groupby("model")["count"].sum()
    assert hits[roles["int8"]] == found["diagnosis"]["teacher_int8"]["b_correct"]


def test_pictures_follow_the_table_not_the_order_of_cases(pristine: Path) -> None:
    shown = pd.read_csv(pristine / "plots/errors/cases.csv").head(3)
    ids = pd.Series([*shown["image_id"][::-1], "ISIC_X"])
    images = np.arange(len(ids), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    for image, caption in cases.pictures(shown, images, ids):
        assert ids[int(image[0, 0, 0])] == re.split(r"\n", caption)[0]
    with pytest.raises(UserError, match="no row in the metadata table"):
        cases.pictures(shown, images, ids.iloc[1:])
