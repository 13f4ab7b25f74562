"""How benchmarks time what they compare: in turns, so that a machine that slows down slows all of them, and by the medians of ratios."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter
from typing import Any

from bgeserve.models.runtime import worker_init
from bgeserve.settings import ModelSettings

CORES = os.cpu_count() or 1

Runs = Mapping[str, Callable[[], object]]
Seconds = Mapping[str, Sequence[float]]


def time_in_turns(runs: Runs, rounds: int) -> dict[str, list[float]]:
    """Seconds of each run in each round, after one round that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            started = perf_counter()
            run()
            if round_ > 0:
                seconds[name].append(perf_counter() - started)
    return seconds


def median_ratio(seconds: Seconds, over: str, under: str) -> float:
    """Of the rounds' ratios: how many times as long `over` takes as `under`."""
    return median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))


def run_on_workers(settings: ModelSettings, compute: Callable[[Any], object], work: Sequence[Any]) -> None:
    """As a CPU replica does: one-thread workers that share the weights and take the next piece of work when they are done with one."""
    with ThreadPoolExecutor(settings.resolved_workers, initializer=worker_init, initargs=(settings,)) as workers:
        list(workers.map(compute, work))
