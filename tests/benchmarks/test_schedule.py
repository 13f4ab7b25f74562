from __future__ import annotations

import random
from itertools import pairwise

import pytest

from benchmarks.serving.length_profiles import POINTS, draw_length
from benchmarks.serving.profile import self_time, shares_of
from benchmarks.serving.schedule import poisson_arrivals


def test_arrivals_are_in_order_at_the_rate_and_the_same_every_time() -> None:
    arrivals = poisson_arrivals(50, 100)
    assert arrivals == sorted(arrivals) == poisson_arrivals(50, 100)
    assert arrivals != poisson_arrivals(50, 100, seed=1)
    assert arrivals[0] > 0
    assert arrivals[-1] < 100
    assert len(arrivals) == pytest.approx(5000, rel=0.1)
    gaps = [after - before for before, after in pairwise(arrivals)]
    # Of independent arrivals, a share of exp(-1) of the gaps is longer than the mean: regular ones would have none.
    assert sum(gap > 1 / 50 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.05)


def test_lengths_are_as_the_percentiles_say() -> None:
    percentiles = {name: 10.0 * percent for name, percent in POINTS.items()}
    draw = random.Random(0)
    lengths = sorted(draw_length(percentiles, draw) for _ in range(4000))
    assert lengths[0] >= 10
    assert lengths[-1] <= 1000
    assert lengths[2000] == pytest.approx(500, rel=0.1)
    assert lengths[3600] == pytest.approx(900, rel=0.05)


def test_a_samples_time_is_its_innermost_functions() -> None:
    counts = self_time(["main (a.py:1);work (b.py:2) 3", "main (a.py:1) 1", "other (c.py:3);work (b.py:2) 4"])
    assert counts == {"work (b.py:2)": 7, "main (a.py:1)": 1}
    assert shares_of(counts, samples=16)[1:] == [("work (b.py:2)", 7 / 16), ("main (a.py:1)", 1 / 16)]
    assert shares_of(counts, samples=16)[0][1] == 8 / 16
