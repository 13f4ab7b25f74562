"""When an open loop sends: arrivals of people who do not know of each other."""

from __future__ import annotations

import random


def poisson_arrivals(per_second: float, seconds: float, seed: int = 0) -> list[float]:
    """Instants within `seconds`, the same ones for the same seed."""
    draw = random.Random(seed)
    arrivals: list[float] = []
    instant = draw.expovariate(per_second)
    while instant < seconds:
        arrivals.append(instant)
        instant += draw.expovariate(per_second)
    return arrivals
