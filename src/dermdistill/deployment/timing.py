"""How long things take beside each other: interleaved, so that a machine that slows down slows all alike.

Times of one run may be compared with each other, and with no other run's. ``cpu`` counts the seconds the
calling thread computed, ``wall`` those that passed: on a busy machine only the first still compares
models, and only when each computes on the calling thread alone (one thread).
"""

import time
from collections.abc import Callable, Mapping

import numpy as np


def interleaved(
    tasks: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 3
) -> dict[str, dict[str, np.ndarray]]:
    """Run every task once per round; name → {"wall", "cpu"}, each seconds (rounds,)."""
    times = {name: {"wall": np.zeros(rounds), "cpu": np.zeros(rounds)} for name in tasks}
    for index in range(-warmup, rounds):
        for name, task in tasks.items():
            wall, cpu = time.perf_counter(), time.thread_time()
            task()
            passed = time.perf_counter() - wall, time.thread_time() - cpu
            if index >= 0:
                times[name]["wall"][index], times[name]["cpu"][index] = passed
    return times


def ratio(times: Mapping[str, Mapping[str, np.ndarray]], of: str, to: str, clock: str = "cpu") -> float:
    """Median over rounds of the time of ``of`` divided by that of ``to`` in the same round."""
    return float(np.median(times[of][clock] / times[to][clock]))
