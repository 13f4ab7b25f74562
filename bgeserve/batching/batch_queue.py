"""Which texts are computed together: a queue of items in two lanes, and the rule that forms the next batch.

Knows costs (tokens), lanes and deadlines. Does not know texts, models, threads or clocks (the time is passed in).
"""

from __future__ import annotations

from math import ceil, inf
from typing import Generic, TypeVar

from bgeserve.batching.fair_lane import FairLane, Item
from bgeserve.types import Lane

T = TypeVar("T")


class BatchQueue(Generic[T]):
    """Items wait in two lanes; a batch takes from one lane, in the order of its tenants' turns, up to `max_batch_tokens`.

    - A batch ends before the first item that does not fit, so long texts are never overtaken for good; an item above the budget runs alone.
    - A batch never mixes lanes: an interactive query would otherwise pay for the bulk texts that fill up its batch.
    - While both lanes wait, bulk is owed `bulk_share` of the computed tokens and goes first whenever a whole batch is owed to it.
    """

    def __init__(self, *, max_batch_tokens: int, bulk_share: float) -> None:
        self.max_batch_tokens = max_batch_tokens
        self._bulk_share = bulk_share
        self._bulk_per_interactive = bulk_share / (1 - bulk_share)
        self._lanes: dict[Lane, FairLane[T]] = {"interactive": FairLane(), "bulk": FairLane()}
        self._owed_to_bulk = 0.0
        self._no_deadline_before = inf

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    @property
    def queued_tokens(self) -> int:
        return sum(lane.tokens for lane in self._lanes.values())

    def lane_tokens(self, lane: Lane) -> int:
        return self._lanes[lane].tokens

    def tokens_through(self, lane: Lane, tenant: str, tokens: int) -> float:
        """How many tokens are computed until `tokens` more, offered now to `lane` by `tenant`, would be done, those included.

        As far as can be known: what the other lane is going to be offered in the meantime counts at its share.
        """
        other: Lane = "bulk" if lane == "interactive" else "interactive"
        share = self._bulk_share if lane == "bulk" else 1 - self._bulk_share
        in_lane = self._lanes[lane].tokens_through(tenant, tokens)
        return in_lane + min(self._lanes[other].tokens, in_lane * (1 - share) / share)

    def offer(self, item: Item[T]) -> None:
        """Queue an item. Raises ValueError when its cost is not positive or it is queued already."""
        if item.cost <= 0:
            raise ValueError(f"an item costs at least one token, not {item.cost}")
        lane = self._lanes[item.lane]
        if item in lane:
            raise ValueError("this item is queued already")
        lane.add(item)
        self._no_deadline_before = min(self._no_deadline_before, item.deadline)

    def cancel(self, item: Item[T]) -> bool:
        """Take an item out before it is computed. False: it is not waiting (any more)."""
        lane = self._lanes[item.lane]
        if item not in lane:
            return False
        lane.remove(item)
        return True

    def expire(self, now: float) -> list[Item[T]]:
        """Take out and return every item whose deadline has passed."""
        if now < self._no_deadline_before:
            return []
        expired = [item for item in self._all() if item.deadline <= now]
        for item in expired:
            self._lanes[item.lane].remove(item)
        self._no_deadline_before = min((item.deadline for item in self._all()), default=inf)
        return expired

    def next_batch(self, takers: int = 1, *, interactive_only: bool = False) -> list[Item[T]]:
        """Take out the items to compute next; empty when nothing waits. Does not look at deadlines: `expire` first.

        takers: how many could compute a batch right now, side by side. A backlog smaller than their budgets is shared out evenly.
        interactive_only: the taker leaves bulk to others.
        """
        name: Lane = "interactive" if interactive_only else self._lane_to_serve()
        lane = self._lanes[name]
        budget = min(self.max_batch_tokens, ceil(lane.tokens / takers))
        batch: list[Item[T]] = []
        tokens = 0
        both_wait = all(self._lanes.values())
        while lane and (not batch or tokens + lane.first().cost <= budget):
            batch.append(lane.take())
            tokens += batch[-1].cost
        if not interactive_only:
            self._settle(name, tokens, both_wait)
        return batch

    def drain(self) -> list[Item[T]]:
        """Take out everything that waits."""
        waiting = self._all()
        for item in waiting:
            self._lanes[item.lane].remove(item)
        return waiting

    def _all(self) -> list[Item[T]]:
        return [item for lane in self._lanes.values() for item in lane]

    def _lane_to_serve(self) -> Lane:
        if not self._lanes["interactive"]:
            return "bulk"
        if self._lanes["bulk"] and self._owed_to_bulk >= self.max_batch_tokens:
            return "bulk"
        return "interactive"

    def _settle(self, lane: Lane, tokens: int, both_waited: bool) -> None:
        if not both_waited:
            self._owed_to_bulk = 0.0  # nobody held the other back, so nothing is owed
        elif lane == "bulk":
            self._owed_to_bulk -= tokens
        else:
            self._owed_to_bulk += tokens * self._bulk_per_interactive
