"""pareto: scores of every benchmarked model against its latency and bytes, as table and figure; no model is run."""

from pathlib import Path

from dermdistill import params
from dermdistill.core.files import atomic, read_json
from dermdistill.errors import run
from dermdistill.reporting import pareto, plots

FOLDER = Path("plots/pareto")


def main() -> None:
    settings = params.load()
    teacher, seed = settings.teacher_id, settings.ship.seed
    chains = [(teacher, f"student_{name}_s{seed}", f"int8_{name}_s{seed}") for name in settings.run.students]
    members = [f"teacher_{name}" for name in settings.kd.teachers]
    alone = [*members, *(model for chain in chains for model in chain[1:])]
    models = {teacher: members} | {model: [model] for model in alone}
    parts = ("val", "holdout")
    metrics = {part: {model: read_json(f"metrics/{part}/{model}.json") for model in models} for part in parts}
    benchmark = read_json("metrics/benchmark.json")
    table = pareto.points(models, settings.predict.passes, benchmark, metrics)
    with atomic(FOLDER / "points.csv") as path:
        table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    for name, figure in {"pareto": pareto.draw(table, chains), "latency": pareto.latencies(benchmark)}.items():
        for suffix in ("png", "svg"):
            plots.save(figure, FOLDER / f"{name}.{suffix}")


if __name__ == "__main__":
    run(main)
