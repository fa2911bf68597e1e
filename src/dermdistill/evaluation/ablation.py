"""The runs of the ablation, ranked on val, and which differences between them are real.

Raw probabilities are compared, since calibration is fitted on val too. The intervals resample lesions of val; they say
nothing about another training of the same run (one seed each). The best of many runs looks better than it is, so its
lead counts only where the paired interval says so, and the holdout has the last word on the run that is then chosen.

Deliberately absent: training (``dermdistill.ablation``), the holdout, table and figure (``reporting``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dermdistill.core.files import read_json
from dermdistill.evaluation import bootstrap, comparison, fidelity, weighted_metrics
from dermdistill.metrics import predictions
from dermdistill.metrics.metrics import rounded
from dermdistill.params import Params

RUNS, METRICS, COSTS = "predictions/ablation", "metrics/ablation.json", "metrics/ablation_costs.json"
AUC = "melanoma ROC-AUC"


def shared_settings(settings: Params) -> dict[str, Any]:
    """What all runs have in common, the name of their teacher among it."""
    kd = settings.kd
    budget = {"epochs": settings.ablation.epochs, "temperature": kd.temperature, "alpha": kd.alpha}
    return budget | {"teacher": settings.teacher_id}


def rank(root: str | Path, settings: Params, names: list[str], shared: Mapping[str, Any]) -> dict[str, Any]:
    """``{best, runs, left, shared, rows}``: rows are the runs and the teacher by melanoma AUC on val, the best first.

    The teacher's predictions are kept beside those of the runs, and its name in ``shared``: so a ranking can be
    recomputed after params.yaml has moved to other teachers.

    Each row has its metrics, its fidelity to the teacher, and its paired differences: a method's from the best method
    in that AUC and from the control in every metric, a shape's from the student as it is (if these runs are done). A
    shape's row also tells what it changes and costs.
    """
    root, teacher = Path(root), shared["teacher"]
    of_run = {name: predictions.read(root / RUNS / f"{name}.csv") for name in [*names, teacher]}
    count, seed = settings.evaluate.bootstrap, settings.evaluate.seed
    bootstrapped = {}
    for name, of_one in of_run.items():
        predictions.require_same_images(of_run[teacher], of_one)
        bootstrapped[name] = bootstrap.bootstrap(_metrics(of_one), of_one.lesion_id, count, seed)
    order = sorted(bootstrapped, key=lambda name: -bootstrapped[name][AUC].value)
    control, shapes = settings.ablation.CONTROL, settings.ablation.shapes
    best = next(name for name in order if name in names and name != control and name not in shapes)
    costs = read_json(root / COSTS) if (root / COSTS).exists() else {}
    asis = settings.kd.method

    def row(name: str) -> dict[str, Any]:
        metrics: dict[str, dict[str, Any]] = {
            metric: {"value": one.value, **dict(zip(("low", "high"), one.interval() or (None, None), strict=True))}
            for metric, one in bootstrapped[name].items()
        }

        def minus(other: str, metric: str = AUC) -> dict[str, Any]:
            return comparison.difference([bootstrapped[name]], [bootstrapped[other]], metric, seed)

        others = {"asis": asis} if name in shapes else {"best": best, "control": control}
        gaps = {f"from_{role}": minus(other) for role, other in others.items() if other in names and other != name}
        made: dict[str, Any] = {"name": name, "metrics": metrics}
        made |= {"fidelity": fidelity.measure(of_run[teacher], of_run[name], count, seed)} | gaps
        if "from_control" in gaps:
            for metric, value in metrics.items():
                if metric != AUC:
                    value["from_control"] = minus(control, metric)
        if name in shapes or (name == asis and shapes):
            made |= {"shape": shapes.get(name, {}), "cost": costs.get(name)}
        return made

    left = [name for name in (*settings.ablation.methods, *shapes) if name not in names]
    ranking: dict[str, Any] = {"best": best, "runs": names, "left": left, "shared": dict(shared)}
    return ranking | {"rows": rounded([row(name) for name in order])}


def recompute(root: str | Path, settings: Params) -> dict[str, Any] | None:
    """The committed ranking once more, from the predictions of its runs; None if there is none."""
    path = Path(root) / METRICS
    if not path.exists():
        return None
    committed = read_json(path)
    return rank(root, settings, list(committed["runs"]), committed["shared"])


def _metrics(of_run: predictions.Predictions) -> dict[str, weighted_metrics.Metric]:
    diagnosis = of_run.probabilities.argmax(axis=1)
    return {
        AUC: weighted_metrics.roc_auc(of_run.melanoma, of_run.p_melanoma),
        "PR-AUC": weighted_metrics.pr_auc(of_run.melanoma, of_run.p_melanoma),
        "balanced accuracy": weighted_metrics.balanced_accuracy(of_run.labels, diagnosis),
        "macro-F1": weighted_metrics.macro_f1(of_run.labels, diagnosis),
    }
