"""What several replicas have to do, as one number each."""

from __future__ import annotations

from collections.abc import Sequence

from bgeserve.types import ModelLoad


def combined(name: str, loads: Sequence[ModelLoad]) -> ModelLoad:
    """Backlogs count by what each replica can do: so many seconds until all of it is done, if it were shared evenly."""
    speed = sum(load.tokens_per_s for load in loads)
    return ModelLoad(
        name,
        replicas=len(loads),
        backlog_s=sum(load.backlog_s * load.tokens_per_s for load in loads) / speed if speed else 0.0,
        tokens_per_s=speed,
        tokens_total=sum(load.tokens_total for load in loads),
        refused_total=sum(load.refused_total for load in loads),
        expired_total=sum(load.expired_total for load in loads),
    )
