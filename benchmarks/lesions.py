"""How several photographs of one lesion should become one answer, chosen on HAM10000's lesions.

    python -m benchmarks.lesions        in the repository, in seconds; writes results/lesions.json

From the committed predictions of the deployed model, calibrated. A lesion has one diagnosis. Every rule turns the
probabilities of its images into one row:

- ``first``: those of the first image by id, as if only that one had been taken: the reference of the differences;
- ``mean``: of the probabilities;
- ``geometric mean``: renormalised; the same as the softmax of the mean of the logits, which is therefore not a row;
- ``max``: those of the image with the highest P(melanoma).

Melanoma AUC, log-loss, sensitivity and specificity at the deployed threshold, which was chosen for single images; over
all lesions, and over those with several images, the only ones that rules can tell apart. Chosen is the lowest log-loss
over the latter on val: with few melanomas it is the least noisy of the four. The holdout judges once. Differences are
paired and resample lesions.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dermdistill import params
from dermdistill.core.classes import MELANOMA
from dermdistill.core.files import write_json
from dermdistill.core.parts import EVALUATED
from dermdistill.evaluation import bootstrap
from dermdistill.evaluation.weighted_metrics import Metric, Proportion, mean, roc_auc
from dermdistill.metrics import calibration, predictions
from dermdistill.metrics.metrics import SMALLEST, rounded

RESULTS, RESAMPLES = "benchmarks/results/lesions.json", 2000
Rule = Callable[[np.ndarray], np.ndarray]  # (n, 7) → (7,)


def geometric_mean(p: np.ndarray) -> np.ndarray:
    powers = np.exp(np.log(np.maximum(p, SMALLEST)).mean(axis=0))
    return np.asarray(powers / powers.sum())


RULES: dict[str, Rule] = {
    "first": lambda p: p[0],
    "mean": lambda p: p.mean(axis=0),
    "geometric mean": geometric_mean,
    "max": lambda p: p[p[:, MELANOMA].argmax()],
}


def measure(known: predictions.Predictions, threshold: float, several: bool) -> dict[str, Any]:
    """Rule → metric → value, interval and difference from ``first``; ``several``: lesions of one image left out."""
    names, first, counts = np.unique(known.lesion_id, return_index=True, return_counts=True)
    kept = counts > several
    lesions, labels, images = names[kept], known.labels[first[kept]], known.probabilities
    of_lesion = [images[known.lesion_id == name] for name in lesions]
    melanoma, results = labels == MELANOMA, {}
    for name, rule in RULES.items():
        p = np.stack([rule(rows) for rows in of_lesion])
        refer = p[:, MELANOMA] >= threshold
        metrics: dict[str, Metric] = {
            "melanoma_auc": roc_auc(melanoma, p[:, MELANOMA]),
            "log_loss": mean(-np.log(np.maximum(p[np.arange(len(p)), labels], SMALLEST))),
            "sensitivity": Proportion(refer, among=melanoma),
            "specificity": Proportion(~refer, among=~melanoma),
        }
        results[name] = bootstrap.bootstrap(metrics, lesions, RESAMPLES, 0)
    rules = {
        name: {metric: one(result, results["first"][metric]) for metric, result in by_metric.items()}
        for name, by_metric in results.items()
    }
    return {"lesions": len(lesions), "images": int(counts[kept].sum()), "melanoma": int(melanoma.sum()), "rules": rules}


def one(result: bootstrap.BootstrapResult, first: bootstrap.BootstrapResult) -> dict[str, Any]:
    gap = result.minus(first)
    return {
        "value": result.value,
        "interval": result.interval(),
        "minus_first": gap.value,
        "minus_first_interval": gap.interval(),
    }


def main() -> None:
    model = params.load().shipped
    fitted = calibration.read(f"metrics/calibrate/{model}.json")
    content: dict[str, Any] = {"model": model, "threshold": fitted.thresholds["sensitivity"]}
    for part in EVALUATED:
        raw = predictions.read(f"predictions/{part}/{model}.csv")
        known = predictions.replace(raw, fitted.apply(raw.probabilities))
        groups = {"all lesions": False, "several images": True}
        content[part] = {name: measure(known, content["threshold"], several) for name, several in groups.items()}
        for group, rows in content[part].items():
            print(f"{part}, {group}: {rows['lesions']} lesions, {rows['melanoma']} melanoma")
            for name, row in rows["rules"].items():
                print(f"  {name:<16}", ", ".join(f"{m} {v['value']:.4f}" for m, v in row.items()))
    rows = content["val"]["several images"]["rules"]
    content["chosen"] = min(rows, key=lambda name: float(rows[name]["log_loss"]["value"]))
    print(f"chosen on val: {content['chosen']}")
    write_json(RESULTS, rounded(content))


if __name__ == "__main__":
    main()
