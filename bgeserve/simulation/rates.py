"""An operator's own rates: a CSV file of what comes at which time, and requests drawn from it.

    at_s,model,requests_per_s,tokens_per_request,lane
    0,bge-m3,40,120,interactive
    3600,bge-m3,900,120,interactive
    7200,bge-m3,0,120,interactive

A row holds until the next one of its model and lane; the last time in the file is its end. `lane` may be left out: interactive.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from math import isfinite
from pathlib import Path

from bgeserve.errors import InvalidRequest
from bgeserve.simulation.load import Arrival
from bgeserve.types import Lane

REQUIRED = ("at_s", "model", "requests_per_s", "tokens_per_request")
LANES: Mapping[str, Lane] = {"interactive": "interactive", "bulk": "bulk"}


@dataclass(frozen=True, slots=True)
class Rate:
    """Of one model and lane, from `at_s` to `until_s`."""

    at_s: float
    until_s: float
    requests_per_s: float
    tokens_per_request: int
    lane: Lane = "interactive"

    @property
    def requests(self) -> float:
        return self.requests_per_s * (self.until_s - self.at_s)

    @property
    def tokens_per_s(self) -> float:
        return self.requests_per_s * self.tokens_per_request


@dataclass(frozen=True, slots=True)
class Together:
    """How many requests come in one instant: at most so many, of so many tokens in all."""

    requests: int
    tokens: float

    def of(self, rate: Rate) -> int:
        return max(1, min(self.requests, int(self.tokens / rate.tokens_per_request)))


ONE_BY_ONE = Together(1, 0)


def read_rates(path: Path) -> dict[str, list[Rate]]:
    """By model, in the order of time. Raises InvalidRequest, which names the file and the line."""
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in REQUIRED if name not in (reader.fieldnames or ())]:
                raise _invalid(str(path), f"its first line names columns, of which {', '.join(missing)} are missing")
            rows = [_row(f"{path}:{n}", row) for n, row in enumerate(reader, 2)]
    except OSError as error:
        raise _invalid(str(path), f"cannot be read: {error.strerror}") from None
    if not rows or (end_s := max(rate.at_s for _, rate in rows)) <= 0:
        raise _invalid(str(path), "it ends at its last time, which must be above 0")
    found: dict[str, list[Rate]] = {}
    open_rows: dict[tuple[str, Lane], Rate] = {}
    for model, rate in sorted(rows, key=lambda row: row[1].at_s):
        if before := open_rows.get((model, rate.lane)):
            found.setdefault(model, []).append(replace(before, until_s=rate.at_s))
        open_rows[model, rate.lane] = rate
    for (model, _), rate in open_rows.items():
        found.setdefault(model, []).append(replace(rate, until_s=end_s))
    return {model: sorted((rate for rate in rates if rate.requests), key=lambda rate: rate.at_s) for model, rates in found.items()}


def _row(where: str, row: Mapping[str, str | None]) -> tuple[str, Rate]:
    at_s, requests_per_s, tokens = (_number(where, name, row[name]) for name in ("at_s", "requests_per_s", "tokens_per_request"))
    if tokens < 1:
        raise _invalid(where, f"tokens_per_request is {row['tokens_per_request']}; a request has at least 1")
    lane = row.get("lane") or "interactive"
    if lane not in LANES:
        raise _invalid(where, f"lane is {lane!r}; it is interactive or bulk")
    if not (model := row["model"]):
        raise _invalid(where, "model is empty")
    return model, Rate(at_s, at_s, requests_per_s, round(tokens), LANES[lane])


def _number(where: str, name: str, text: str | None) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = float("nan")
    if not isfinite(number) or number < 0:
        raise _invalid(where, f"{name} is {text!r}; it is a number of at least 0")
    return number


def _invalid(where: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: {problem}")


def arrivals(rates: Sequence[Rate], *, together: Together = ONE_BY_ONE, one_of: int = 1, seed: int = 0) -> Iterator[Arrival]:
    """Poisson processes of these rates, or of `one_of` them as many parts."""
    return merge(
        *(_of_one(rate, together.of(rate), one_of, random.Random(seed + n)) for n, rate in enumerate(rates)),
        key=lambda arrival: arrival.at_s,
    )


def _of_one(rate: Rate, together: int, one_of: int, draw: random.Random) -> Iterator[Arrival]:
    per_s = rate.requests_per_s / together / one_of
    at_s = rate.at_s + draw.expovariate(per_s)
    while at_s < rate.until_s:
        yield Arrival(at_s, rate.tokens_per_request, rate.lane, together)
        at_s += draw.expovariate(per_s)


def peak(rates: Sequence[Rate], of: Callable[[Rate], float]) -> float:
    """The most at any instant of all that goes on then; 0 of nothing."""
    return max(
        (sum(of(rate) for rate in rates if rate.at_s <= begin < rate.until_s) for begin in {rate.at_s for rate in rates}), default=0.0
    )
