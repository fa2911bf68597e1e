"""Mistakes made on purpose: does `make test` notice each of them?

    python -m benchmarks.mutants [NAME …]     in the repository; writes benchmarks/results/mutants.json

Each mutant is a copy of the committed files with one replacement. In it run the tests that `make test` runs (nothing
marked slow), of the files named here, until the first fails; that one is noted. A mutant that survives is a gap.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from dermdistill.core.files import read_json, write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/mutants.json"


class Mutant(NamedTuple):
    file: str  # below src/dermdistill, or stages/…
    old: str
    new: str
    tests: str  # what is run: files or folders below tests/


MUTANTS = {
    "KL the other way round": Mutant(
        "distillation/losses.py", "F.kl_div(log_q, log_p, red", "F.kl_div(log_p, log_q, red", "distillation"
    ),
    "T² dropped": Mutant(
        "distillation/losses.py", "log_target=True) * temperature**2", "log_target=True)", "distillation"
    ),
    "α weighs the labels": Mutant(
        "distillation/losses.py", "(1 - alpha) * task + alpha * soft",
        "alpha * task + (1 - alpha) * soft", "distillation training/test_loop.py",
    ),
    "teacher in the loop in training mode": Mutant(
        "distillation/ensemble.py", "    network.eval()\n", "    network.train()\n", "distillation"
    ),
    "teacher of the stored targets in training mode": Mutant(
        "distillation/ensemble.py", "return Ensemble(members, flips).eval()", "return Ensemble(members, flips).train()",
        "distillation",
    ),
    "targets of another view": Mutant(
        "distillation/teacher_targets.py", "targets[batch.epoch % len(targets)]",
        "targets[(batch.epoch + 1) % len(targets)]", "distillation",
    ),
    "moving average off": Mutant(
        "training/optim.py", "mine.lerp_(theirs[name], 1 - decay)", "mine.copy_(theirs[name])", "training"
    ),
    "validation in training mode": Mutant(
        "training/loop.py", 'unaugmented."""\n    model.eval()', 'unaugmented."""\n    model.train()', "training"
    ),
    "optimizer forgotten when resuming": Mutant(
        "training/loop.py", '        optimizer.load_state_dict(state["optimizer"])\n', "", "training"
    ),
    "split by image": Mutant(
        "splitting/splits.py", 'return {lesion: assignment[groups.get(lesion, lesion)] for lesion in',
        'return {lesion: PARTS[int(hashlib.sha256(lesion.encode()).hexdigest(), 16) % 3] for lesion in', "splitting",
    ),
    "duplicates ignored by the split": Mutant(
        "splitting/splits.py", "seed, previous, {} if frozen else groups)", "seed, previous, {})", "splitting"
    ),
    "bootstrap by image": Mutant(
        "evaluation/bootstrap.py", "names, index = np.unique(lesions, return_inverse=True)\n    drawn",
        "names, index = np.unique(np.arange(len(lesions)), return_inverse=True)\n    drawn", "evaluation",
    ),
    "threshold one melanoma short": Mutant(
        "metrics/calibration.py", "max(needed, 1) - 1", "max(needed - 1, 1) - 1", "metrics"
    ),
    "calibration fitted on the holdout": Mutant(
        "stages/calibrate.py", "predictions/val/", "predictions/holdout/", "evaluation/test_protocol.py"
    ),
    "val and holdout swapped in prediction": Mutant(
        "stages/predict.py", "split = load_split(part)",
        'split = load_split({"val": "holdout", "holdout": "val"}[part])', "test_pipeline.py",
    ),
    "INT8 calibrated on val": Mutant(
        "stages/quantize.py", "choose(train.rows,", "choose(val.rows,", "quantization/test_int8.py"
    ),
    "INT8 predicted by the FP32 file": Mutant(
        "predictor.py", 'model_id.folder / "model.onnx"', 'model_id.folder / "fp32.onnx"', "test_pipeline.py"
    ),
    "best baseline chosen on the holdout": Mutant(
        "reporting/readme.py", 'results.val[model]["raw"]["melanoma_roc_auc"]',
        'results.holdout[model]["raw"]["melanoma_roc_auc"]', "reporting",
    ),
}  # fmt: skip


def killer(name: str, mutant: Mutant) -> str | None:
    """The first test that fails in a copy with this mistake."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "copy"
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(root)], check=True)
        path = root / ("" if mutant.file.startswith("stages/") else "src/dermdistill") / mutant.file
        text = path.read_text(encoding="utf-8")
        if text.count(mutant.old) != 1:
            raise SystemExit(f"{name}: {mutant.file} does not hold {mutant.old!r} once; adapt the mutant")
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        tests = [f"tests/{one}" for one in mutant.tests.split()]
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-x", "-m", "not slow", *tests]
        ours = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}  # before the installed package
        done = subprocess.run(command, cwd=root, env=ours, capture_output=True, text=True, check=False)
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
        if bool(done.returncode) != bool(found) or done.returncode not in (0, 1):
            raise SystemExit(f"{name}: pytest did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return found[1] if found else None


def main(names: list[str]) -> None:
    results: dict[str, str | None] = read_json(RESULTS)["killed_by"] if RESULTS.exists() else {}
    for name in names or MUTANTS:
        start = time.monotonic()
        results[name] = killer(name, MUTANTS[name])
        print(f"{name}: {results[name] or 'SURVIVED'} ({time.monotonic() - start:.0f} s)", flush=True)
        write_json(RESULTS, {"killed_by": {one: results[one] for one in MUTANTS if one in results}})
    if survivors := [name for name in names or MUTANTS if results[name] is None]:
        raise SystemExit(f"{len(survivors)} survived: {'; '.join(survivors)}")


if __name__ == "__main__":
    main(sys.argv[1:])
