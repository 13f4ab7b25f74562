"""The loads that the policies are compared on: made from a seed, so that a few lines here are the whole of them.

Rates are in replicas: 1 is what keeps one of them busy.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log, pi, sin

from bgeserve.simulation.load import Arrival
from bgeserve.types import Lane

STEPS = (0.5, 3.0, 1.0, 4.5, 0.5)
"""Of equal length."""
JOB_TEXTS = 1000
JOBS_PER_BURST = (2, 6)
BURSTS = 6
BESIDE_JOBS = 0.4
NIGHT, DAY = 0.3, 4.5
DAYS = 2
SPREAD = 0.6
"""Sigma of the log-normal lengths: about that of docstrings."""
TAIL_S = 30.0
"""After the last request, for what is left of it."""
TIMEOUT_S: dict[Lane, float] = {"interactive": 10.0, "bulk": 120.0}


@dataclass(frozen=True)
class Scale:
    """Of the service that the trace is for."""

    tokens_per_s: float
    """Of one replica."""
    request_tokens: float
    """In the mean, of an interactive request."""
    text_tokens: int
    """Of a job's text."""
    seconds: float


@dataclass(frozen=True)
class Trace:
    name: str
    says: str
    seconds: float
    arrivals: Sequence[Arrival]


def traces(scale: Scale, seed: int = 0) -> list[Trace]:
    return [_steps(scale, seed), _bursts(scale, seed), _diurnal(scale, seed)]


def _steps(scale: Scale, seed: int) -> Trace:
    length_s = scale.seconds / len(STEPS)
    arrivals = _queries(scale, lambda at_s: STEPS[int(at_s / length_s)], max(STEPS), seed)
    return Trace("steps", f"queries, {', '.join(map(str, STEPS))} replicas for {length_s:g} s each", scale.seconds, list(arrivals))


def _bursts(scale: Scale, seed: int) -> Trace:
    draw = random.Random(seed)
    jobs = [
        Arrival(at_s, JOB_TEXTS * scale.text_tokens, "bulk")
        for n in range(BURSTS)
        for at_s in [(n + draw.uniform(0.1, 0.6)) * scale.seconds / BURSTS]
        for _ in range(draw.randint(*JOBS_PER_BURST))
    ]
    queries = _queries(scale, lambda _: BESIDE_JOBS, BESIDE_JOBS, seed)
    says = f"{BURSTS} bursts of {JOBS_PER_BURST[0]} to {JOBS_PER_BURST[1]} jobs of {JOB_TEXTS:,} texts, queries of {BESIDE_JOBS} replicas"
    return Trace("bursts", says, scale.seconds, sorted([*jobs, *queries], key=lambda arrival: arrival.at_s))


def _diurnal(scale: Scale, seed: int) -> Trace:
    def replicas(at_s: float) -> float:
        return NIGHT + (DAY - NIGHT) * sin(pi * DAYS * at_s / scale.seconds) ** 2

    says = f"queries, {NIGHT} to {DAY} replicas and back, {DAYS} times"
    return Trace("diurnal", says, scale.seconds, list(_queries(scale, replicas, DAY, seed)))


def _queries(scale: Scale, replicas: Callable[[float], float], most: float, seed: int) -> Iterator[Arrival]:
    """A Poisson process of that rate, thinned from one of the highest."""
    draw = random.Random(seed)
    per_replica = scale.tokens_per_s / scale.request_tokens
    median = log(scale.request_tokens) - SPREAD**2 / 2
    at_s = draw.expovariate(most * per_replica)
    while at_s < scale.seconds:
        tokens = max(1, round(draw.lognormvariate(median, SPREAD)))
        if draw.random() * most < replicas(at_s):
            yield Arrival(at_s, tokens)
        at_s += draw.expovariate(most * per_replica)
