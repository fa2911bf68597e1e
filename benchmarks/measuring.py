"""Measuring a training loop from outside: each run a fork of its own, timed at every loss, run in turn with others."""

import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WARM = 3  # steps before those timed: memory is warm (its pages are faulted in over several), workers have begun


class Clock:
    """Times of each step, taken when its loss is computed; after the last one the process has done its duty."""

    def __init__(self, steps: int, batch: int, pipe: int) -> None:
        self.steps, self.images, self.pipe, self.times = steps, steps * batch, pipe, list[tuple[float, float]]()

    def __call__(self) -> None:
        self.times.append((time.perf_counter(), cpu(os.getpid())))
        if len(self.times) == WARM + self.steps:
            (start, used), (end, spent) = self.times[WARM - 1], self.times[-1]
            found = {"wall": self.images / (end - start), "cpu": self.images / (spent - used)}
            os.write(self.pipe, json.dumps(found).encode())
            os.killpg(os.getpid(), signal.SIGKILL)  # the loader's workers too


Run = Callable[[Clock], None]
Variants = dict[str, Run]


def in_turn(variants: Variants, steps: int, batch: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median rates of each variant, measured ``rounds`` times in turn."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for turn in range(rounds):
        for name, run in variants.items():
            found[name].append(rate(run, steps, batch))
            print(turn, name, found[name][-1], flush=True)
    return {
        name: {kind: round(statistics.median(each[kind] for each in rates), 2) for kind in ("wall", "cpu")}
        for name, rates in found.items()
    }


def rate(run: Run, steps: int, batch: int) -> dict[str, float]:
    """Images per second of wall and of CPU time, in a process of its own."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        run(Clock(steps, batch, there))
        os._exit(1)  # too few batches
    os.close(there)
    os.waitpid(child, 0)
    found: dict[str, float] = json.loads(os.read(here, 1000))
    os.close(here)
    return found


def cpu(process: int) -> float:
    """Seconds of CPU time of a process and its living children (the loader's workers)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu(int(c)) for c in Path(f"/proc/{process}/task/{process}/children").read_text().split())


def busy() -> bool:
    """Whether other programs use this machine."""
    return os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1)


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text()
    facts = dict(line.split("\t: ", 1) for line in info.replace("\t\t: ", "\t: ").splitlines() if "\t: " in line)
    flags = [flag for flag in facts.get("flags", "").split() if flag in ("avx2", "fma", "avx512f", "avx512_bf16")]
    return {
        "cpu": f"{facts.get('model name', platform.processor())}, family {facts.get('cpu family')}",
        "cores": os.cpu_count(),
        "flags": flags,
        "torch": torch.__version__,
        "libc": "-".join(platform.libc_ver()),
    }
