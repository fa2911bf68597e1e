"""One self-contained HTML page, figures, the documents' tables and a small JSON, all from files of metrics.

The page fetches nothing: style, script and pictures are inside, and a content security policy forbids everything else,
so that it can be opened in a clinic without network and kept as a record. Its script only sorts tables and enlarges
pictures; without it nothing is lost. Its text and order stand in ``templates``; here are only the values.

Deliberately absent: any metric of its own (``evaluation`` computes), and any date or revision, which would make two
equal reports differ.
"""

import base64
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from dermdistill.core.classes import NAMES
from dermdistill.core.files import write_json, write_table, write_text
from dermdistill.errors import UserError
from dermdistill.evaluation import ablation, pareto
from dermdistill.metrics import predictions
from dermdistill.params import Params
from dermdistill.reporting import figures, model_figures, readme, results, style, tables
from dermdistill.reporting.render import TEMPLATES, environment, words
from dermdistill.reporting.results import Results, read_table

PHANTOM = "HAM_9"  # the embedded phantom's lesions carry ids that HAM10000 does not use
ABLATION_FIGURE = "plots/ablation.png"
PHOTOGRAPH_WIDTH = 1500  # pixels: of a panel inside the page


def build(root: str | Path, settings: Params) -> None:
    """Write report, figures, summary and the documents' tables below ``root``.

    Raises:
        UserError: naming the first file that is missing.
    """
    root = Path(root)
    of_models, stages = results.load(root, settings), results.load_stages(root, settings)
    write_json(root / "metrics/summary.json", results.summary(*of_models.by_part()))
    for name, text in readme.texts(of_models, stages["benchmark"]).items():
        write_text(root / f"{readme.FOLDER}/{name}.md", text)
    for name, figure in (figures.draw(root, of_models) | model_figures.draw(of_models)).items():
        style.save(figure, root / f"plots/figures/{name}.png")
    write_costs(root, of_models, stages["benchmark"])
    write_text(root / "reports/report.html", page(root, of_models, stages))


def write_costs(root: Path, of_models: Results, benchmark: Mapping[str, Any]) -> None:
    """``plots/pareto``: accuracy against latency and bytes."""
    settings, folder = of_models.settings, root / "plots/pareto"
    parts = {"val": of_models.val, "holdout": of_models.holdout}
    points = pareto.points(pareto.networks(settings), settings.predict.passes, benchmark, parts)
    write_table(folder / "points.csv", points)
    bubbles = model_figures.pareto_front(points, pareto.chains(settings))
    for name, figure in {"pareto": bubbles, "latency": model_figures.latencies(benchmark)}.items():
        for suffix in ("png", "svg"):
            style.save(figure, folder / f"{name}.{suffix}")


def build_ablation(root: str | Path, settings: Params, names: list[str]) -> str:
    """Rank the runs ``names``; write metrics, figure, and the table into its document if that exists. Gives the table.

    The teacher's predictions on val are kept beside those of the runs.
    """
    root, teacher = Path(root), settings.teacher_id
    of_teacher = readme.read_text(root / f"predictions/val/{teacher}.csv", "`dvc repro` makes it")
    write_text(root / f"{ablation.RUNS}/{teacher}.csv", of_teacher)
    ranking = ablation.rank(root, settings, names, ablation.shared_settings(settings))
    write_json(root / ablation.METRICS, ranking)
    text = readme.ablation_text(ranking)
    if (root / readme.ABLATION).exists():
        readme.insert(root / readme.ABLATION, "ablation", text)
    aucs = {row["name"]: row["metrics"][ablation.AUC] for row in ranking["rows"]}
    intervals = [model_figures.Interval(name, one["value"], one["low"], one["high"]) for name, one in aucs.items()]
    title = words("ablation_figure", student=settings.ablation.student)
    style.save(model_figures.comparison(intervals, "melanoma AUC on val, 95 % interval", title), root / ABLATION_FIGURE)
    return text


def page(root: Path, of_models: Results, stages: Mapping[str, Any]) -> str:
    """The report; the figures must have been saved below ``root``."""
    settings, roles = of_models.settings, of_models.roles
    holdout = of_models.holdout[settings.shipped]
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    context = {
        "settings": settings,
        "deployed": settings.shipped,
        "roles": roles,
        "phantom": is_phantom(root, settings.shipped),
        "diagnoses": NAMES,
        "results": of_models,
        "holdout": holdout,
        "by_role": {model: of_models.holdout[model] for model in roles.values()},
        "prevalence": holdout["n"]["melanoma"] / holdout["n"]["images"],
        "stages": stages,
        "tables": tables.tables(of_models),
        "stage_tables": tables.stage_tables(stages),
        "metric_names": ", ".join(model_figures.HEADLINE.values()),
        "groups": [
            (name, title, {model: of_models.holdout[model] for model in models})
            for name, title, models in model_figures.groups(of_models)
        ],
        "student_against_control": model_figures.student_against_control(of_models),
        "ties": sum(pair["metrics"]["melanoma.roc_auc"]["verdict"] == "tie" for pair in of_models.compared["pairs"]),
        "trained": figures.trained(settings),
        "case_ids": read_table(root, "plots/errors/cases.csv").groupby("kind")["image_id"].agg(list).to_dict(),
        "picture": lambda path, photograph=False: picture(root / path, photograph),
        "drawn": lambda name: picture(root / f"plots/figures/{name}.png"),
        "exists": lambda path: (root / path).exists(),
        "script": Markup(script),  # our own file: nothing in it to escape
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return environment(html=True).get_template("report.html.j2").render(context) + "\n"


def picture(path: Path, photograph: bool = False) -> str:
    """A PNG as a data URI; photographs become JPEG, which keeps the page small enough to mail."""
    try:
        content, kind = path.read_bytes(), "png"
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `dvc repro` makes it") from None
    if photograph:
        buffer = io.BytesIO()
        image = Image.open(io.BytesIO(content)).convert("RGB")
        image.thumbnail((PHOTOGRAPH_WIDTH, 100 * PHOTOGRAPH_WIDTH))
        image.save(buffer, "JPEG", quality=75, optimize=True)
        content, kind = buffer.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def is_phantom(root: Path, model: str) -> bool:
    lesions = predictions.read(root / f"predictions/holdout/{model}.csv").lesion_id
    return all(str(lesion).startswith(PHANTOM) for lesion in lesions)
