"""Computes a batch whatever is in it: one that fails is halved and tried again, down to single items.

So out-of-memory costs speed instead of answers, and a poison item fails alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from bgeserve.errors import ComputeError
from bgeserve.redaction import said

P = TypeVar("P")
R = TypeVar("R")

log = logging.getLogger(__name__)


def compute_by_halves(compute: Callable[[list[P]], Sequence[R]], batch: list[P], on_failure: Callable[[], None]) -> list[R | ComputeError]:
    """What became of each item. `on_failure` is told of every batch that failed."""
    try:
        return list(compute(batch))
    except Exception as error:  # noqa: BLE001 - whatever a model raises must end in a future, never in a dead worker
        failure = error
    on_failure()
    if len(batch) == 1:
        log.error("a text cannot be computed", exc_info=failure)
        return [ComputeError(f"the model failed on this text alone: {said(failure)}")]
    # Its frames hold the tensors of the pass that failed: what is tried next would find that much less memory.
    del failure
    middle = len(batch) // 2
    return compute_by_halves(compute, batch[:middle], on_failure) + compute_by_halves(compute, batch[middle:], on_failure)
