"""The cheapest drills, as `python -m benchmarks.drills` runs them: what a fault costs is within its rule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from rich.console import Console

from benchmarks.drills.__main__ import DRILLS
from benchmarks.drills.running import Bench

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(tmp_path_factory.mktemp("drills"), stack, Console())


@pytest.mark.parametrize("name", ["controller", "owner"])
def test_a_drill_keeps_its_rule(bench: Bench, name: str) -> None:
    (drill,) = (drill for drill in DRILLS if drill.name == name)
    outcome = bench.outcome(drill, seed=0)
    assert outcome.row
    assert outcome.breaches == []
