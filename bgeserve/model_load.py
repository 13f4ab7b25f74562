"""What a model's replicas have to do and have done: of one, and of several together."""

from __future__ import annotations

from collections.abc import Sequence

from bgeserve.travels import travels


@travels
class ModelLoad:
    """What the running replicas of a model have to do now, and have done since each of them started."""

    name: str = ""
    replicas: int = 1
    """That said so."""
    backlog_s: float = 0.0
    """Seconds until what waits and runs now is computed."""
    tokens_per_s: float = 0.0
    """What they can do together, as measured; 0 before anything was."""
    tokens_total: int = 0
    """Computed."""
    refused_total: int = 0
    """Calls, because of what waited already."""
    expired_total: int = 0
    """Texts whose deadline passed before they were computed."""


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
