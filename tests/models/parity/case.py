"""One comparison of our numbers with somebody else's on the same checkpoint, as the tests and the parity table use it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
"""Values by output."""
Computing = Iterator[tuple[str, NDArray[Any]]]
"""Values of one output after another."""
Mutant = Callable[[pytest.MonkeyPatch], None]
"""Breaks our code in one place."""

VECTOR_TOLERANCE = 1e-5
"""Of vectors, lexical weights and what is made of them."""
LOGIT_TOLERANCE = 1e-4

HERE = f"FlagEmbedding {version('FlagEmbedding')} here, transformers {version('transformers')}"


@dataclass(frozen=True)
class Case:
    model: str
    """The published model that the checkpoint is like: a name of `folders.MAKERS`."""
    theirs: Callable[[Path], Arrays]
    ours: Callable[[Path], Computing]
    """Loads anew, so that a mutant of loading shows too."""
    tolerance: float
    mutants: tuple[Mutant, ...]
    about: str = ""
    where: str = HERE
    """Who computed `theirs`, and when."""

    def __str__(self) -> str:
        return f"{self.model} {self.about}".strip()

    def differences(self, folder: Path) -> dict[str, float]:
        """The largest one of each output."""
        found = dict(self._compare(folder))
        assert found.keys() == self.values(folder).keys()
        return found

    def fails(self, folder: Path) -> bool:
        """Computes no more than it takes to know."""
        return any(far > self.tolerance for _, far in self._compare(folder))

    def _compare(self, folder: Path) -> Iterator[tuple[str, float]]:
        theirs = self.values(folder)
        return ((output, _largest_difference(ours, theirs[output])) for output, ours in self.ours(folder))

    def values(self, folder: Path) -> Arrays:
        """Theirs."""
        return _computed_once(self.theirs, folder)


@cache
def _computed_once(theirs: Callable[[Path], Arrays], folder: Path) -> Arrays:
    return {output: np.asarray(values) for output, values in theirs(folder).items()}


def _largest_difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Infinite where shapes differ or a value is no number."""
    if np.shape(ours) != np.shape(theirs):
        return math.inf
    difference = float(np.abs(np.asarray(ours, np.float64) - theirs).max())
    return difference if math.isfinite(difference) else math.inf
