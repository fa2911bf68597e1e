"""Does a training that is killed at random moments end with the bits of one that never was?

    python -m benchmarks.kills [KILLS]     in the repository; writes benchmarks/results/kills.json

Teachers and students are trained on a few phantom images; each training is killed with SIGKILL after a random time and
started again until it ends, then its weights and history are compared with those of the same training left alone. The
processes are forks of this one, which has imported everything, so that nearly all kills fall into the training proper.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
import yaml

from dermdistill.core.files import sha256, write_json
from dermdistill.phantom import phantom
from dermdistill.presets import merged
from stages import audit, distill, ensemble, prepare, raw, split, train_teacher

CUT = {"stages": 1, "blocks": 1, "head": 16}
SMALL = {"weights": "none", "cut": CUT, "epochs": 8}
CHANGES = {
    "data": {"height": 48, "width": 64},
    "train": {"batch_size": 16, "augment": {"hair": 2, "blur": 0.5, "erase": 0.2}},
    "teachers": {"lite0": SMALL | {"mixup": 0.2}},
    "students": {"tiny": SMALL},
    "kd": {"teachers": ["lite0"], "num_views": 0},  # in the loop
}
TEACHER, STUDENT = Path("models/teachers/teacher_lite0"), Path("models/students/student_tiny_s0")
CHECKPOINTS = Path("runtime/checkpoints")


def main(wanted: int = 50) -> None:
    results, params = Path("benchmarks/results").absolute(), yaml.safe_load(Path("params.yaml").read_text())
    os.environ["DERMDISTILL_TRACKING"] = "off"
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        project(merged(params, CHANGES))
        rounds = [
            ("teacher", lambda: train_teacher.main("lite0"), TEACHER),
            ("student", lambda: distill.main("tiny", "0"), STUDENT),
        ]
        reference, seconds = {}, {}
        for kind, train, folder in rounds:
            start = time.monotonic()
            assert follow(train, None) == 0
            reference[kind], seconds[kind] = bits(folder), time.monotonic() - start
            if kind == "teacher":
                ensemble.main()  # of one
        kills: list[dict[str, object]] = []
        trainings = identical = 0
        while len(kills) < wanted:
            kind, train, folder = rounds[trainings % len(rounds)]
            remove(folder)
            while follow(train, delay := chance.uniform(0, 0.4 * seconds[kind])) != 0:
                kills.append({"training": trainings, "kind": kind, "seconds": round(delay, 2), **traces()})
                print(json.dumps(kills[-1]), flush=True)
            trainings += 1
            identical += bits(folder) == reference[kind]
        result = {
            "kills": len(kills),
            "trainings": trainings,
            "bit_identical": identical,
            "killed_while_writing": kills[-1]["half_written"],
            "killed_before_the_first_checkpoint": sum(not kill["checkpoint"] for kill in kills),
            "epochs_each": SMALL["epochs"],
            "torch": torch.__version__,
            "each": kills,
        }
        write_json(results / "kills.json", result)
        os.chdir(results)
    print(json.dumps({key: value for key, value in result.items() if key != "each"}, indent=2))
    if identical < trainings:
        raise SystemExit("error: a killed training ended with other bits")


def project(params: dict[str, object]) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    phantom.write(Path("data/raw"), lesions=120, seed=0, height=60, width=80, progress=False)
    for stage in (raw, prepare, audit, split):
        stage.main()


def follow(train: Callable[[], None], delay: float | None) -> int:
    """Run ``train`` in a fork, killed after ``delay`` seconds if it still runs; its exit code, negative if killed."""
    child = os.fork()
    if child == 0:
        try:
            with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                train()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    end = None if delay is None else time.monotonic() + delay
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            if code > 0:
                raise SystemExit("error: a training failed; the line above says why")
            return code
        if end is not None and time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            end = None
        time.sleep(0.002)


def bits(folder: Path) -> tuple[str, str]:
    return sha256(folder / "model.safetensors"), sha256(folder / "history.csv")


def remove(folder: Path) -> None:
    shutil.rmtree(folder)
    (folder / "history.csv").unlink()


def traces() -> dict[str, object]:
    """What the kills left: whether there is a checkpoint, and how many half-written files so far."""
    return {
        "checkpoint": any(CHECKPOINTS.glob("[!.]*.pt")),
        "half_written": len(list(CHECKPOINTS.glob(".*"))),
    }


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
