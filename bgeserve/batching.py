"""Which texts are computed together: a queue of items in two lanes, and the rule that forms the next batch.

Knows costs (tokens), lanes and deadlines. Does not know texts, models, threads or clocks (the time is passed in).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import ceil, inf
from typing import Generic, TypeVar

from bgeserve.types import Lane

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Item(Generic[T]):
    """One text (or pair) that waits. `cost` is in tokens, `deadline` on the clock of whoever passes `now`."""

    payload: T
    cost: int
    lane: Lane = "interactive"
    deadline: float = inf


class BatchQueue(Generic[T]):
    """Items wait in the order in which they came, each in its lane; a batch takes from one lane up to `max_batch_tokens`.

    - A batch ends before the first item that does not fit, so long texts are never overtaken for good; an item above the budget runs alone.
    - A batch never mixes lanes: an interactive query would otherwise pay for the bulk texts that fill up its batch.
    - While both lanes wait, bulk is owed `bulk_share` of the computed tokens and goes first whenever a whole batch is owed to it.
    """

    def __init__(self, *, max_batch_tokens: int, bulk_share: float) -> None:
        self.max_batch_tokens = max_batch_tokens
        self._bulk_per_interactive = bulk_share / (1 - bulk_share)
        self._lanes: dict[Lane, OrderedDict[Item[T], None]] = {"interactive": OrderedDict(), "bulk": OrderedDict()}
        self._tokens: dict[Lane, int] = {"interactive": 0, "bulk": 0}
        self._owed_to_bulk = 0.0
        self._no_deadline_before = inf

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    @property
    def queued_tokens(self) -> int:
        return sum(self._tokens.values())

    def lane_tokens(self, lane: Lane) -> int:
        return self._tokens[lane]

    def offer(self, item: Item[T]) -> None:
        """Queue an item. Raises ValueError when its cost is not positive or it is queued already."""
        if item.cost <= 0:
            raise ValueError(f"an item costs at least one token, not {item.cost}")
        lane = self._lanes[item.lane]
        if item in lane:
            raise ValueError("this item is queued already")
        lane[item] = None
        self._tokens[item.lane] += item.cost
        self._no_deadline_before = min(self._no_deadline_before, item.deadline)

    def cancel(self, item: Item[T]) -> bool:
        """Take an item out before it is computed. False: it is not waiting (any more)."""
        if item not in self._lanes[item.lane]:
            return False
        self._remove(item)
        return True

    def expire(self, now: float) -> list[Item[T]]:
        """Take out and return every item whose deadline has passed."""
        if now < self._no_deadline_before:
            return []
        expired = [item for lane in self._lanes.values() for item in lane if item.deadline <= now]
        for item in expired:
            self._remove(item)
        self._no_deadline_before = min((item.deadline for lane in self._lanes.values() for item in lane), default=inf)
        return expired

    def next_batch(self, takers: int = 1) -> list[Item[T]]:
        """Take out the items to compute next; empty only when nothing waits. Does not look at deadlines: `expire` first.

        `takers`: how many could compute a batch right now, side by side. A backlog smaller than their budgets is shared out evenly.
        """
        lane = self._lane_to_serve()
        budget = min(self.max_batch_tokens, ceil(self._tokens[lane] / takers))
        batch: list[Item[T]] = []
        tokens = 0
        for item in self._lanes[lane]:
            if batch and tokens + item.cost > budget:
                break
            batch.append(item)
            tokens += item.cost
        self._settle(lane, tokens)
        for item in batch:
            self._remove(item)
        return batch

    def drain(self) -> list[Item[T]]:
        """Take out everything that waits."""
        waiting = [item for lane in self._lanes.values() for item in lane]
        for item in waiting:
            self._remove(item)
        return waiting

    def _lane_to_serve(self) -> Lane:
        if not self._lanes["interactive"]:
            return "bulk"
        if self._lanes["bulk"] and self._owed_to_bulk >= self.max_batch_tokens:
            return "bulk"
        return "interactive"

    def _settle(self, lane: Lane, tokens: int) -> None:
        if not (self._lanes["interactive"] and self._lanes["bulk"]):
            self._owed_to_bulk = 0.0  # nobody held the other back, so nothing is owed
        elif lane == "bulk":
            self._owed_to_bulk -= tokens
        else:
            self._owed_to_bulk += tokens * self._bulk_per_interactive

    def _remove(self, item: Item[T]) -> None:
        del self._lanes[item.lane][item]
        self._tokens[item.lane] -= item.cost
