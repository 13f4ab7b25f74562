"""One lane of a queue: its tenants take turns by tokens, and a tenant's flows within its turns; what is in a flow stays in order.

Start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996). Knows costs and tenants; does not know budgets, deadlines or other lanes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

from bgeserve.types import Lane

T = TypeVar("T")

Flow = tuple[str, str]
"""A tenant, and one of its flows: what is in it stays in order."""


@dataclass(slots=True, eq=False)
class Item(Generic[T]):
    """One text (or pair) that waits. `cost` is in tokens, `deadline` on the clock of whoever passes `now`."""

    payload: T
    cost: int
    lane: Lane = "interactive"
    deadline: float = inf
    tenant: str = ""
    """Whose it is: tenants of one lane get equal shares of its tokens while all of them wait."""
    flow: str = ""
    """Of its tenant: the flows of a tenant get equal shares of what that one gets."""

    @property
    def waits_in(self) -> Flow:
        return self.tenant, self.flow


class FairLane(Generic[T]):
    def __init__(self) -> None:
        self.tokens = 0
        self._waiting: dict[Flow, OrderedDict[Item[T], None]] = {}
        self._tokens: dict[str, int] = {}  # by tenant
        self._turns: dict[Flow, float] = {}  # virtual time (tokens had) at which each flow's next item starts
        self._now = 0.0  # virtual time: the start of the item that was taken last

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[Item[T]]:
        for items in self._waiting.values():
            yield from items

    def __contains__(self, item: Item[T]) -> bool:
        return item in self._waiting.get(item.waits_in, ())

    def add(self, item: Item[T]) -> None:
        tenant, flow = item.tenant, item.waits_in
        if flow not in self._waiting:
            self._waiting[flow] = OrderedDict()
            # Who was away has saved up nothing; who has just been served does not come first again by coming back at once.
            self._turns[flow] = max(self._now, self._turns.get(flow, 0.0))
        self._waiting[flow][item] = None
        self._tokens[tenant] = self._tokens.get(tenant, 0) + item.cost
        self.tokens += item.cost

    def first(self) -> Item[T]:
        """The item whose turn it is. The lane must not be empty."""
        return next(iter(self._waiting[self._flow_whose_turn_it_is()]))

    def take(self) -> Item[T]:
        """Take that item out, to be computed."""
        flow = self._flow_whose_turn_it_is()
        item = next(iter(self._waiting[flow]))
        self._now = self._turns[flow]
        # A tenant with several flows has one share: each of them comes so much later again.
        self._turns[flow] += item.cost * self._flows_of(item.tenant)
        self.remove(item)
        return item

    def remove(self, item: Item[T]) -> None:
        """Take an item out that will not be computed."""
        tenant, flow = item.tenant, item.waits_in
        del self._waiting[flow][item]
        self._tokens[tenant] -= item.cost
        self.tokens -= item.cost
        if not self._waiting[flow]:
            del self._waiting[flow]
            if not self._flows_of(tenant):
                del self._tokens[tenant]
        if not self._waiting:
            self._turns.clear()
            self._now = 0.0

    def tokens_through(self, tenant: str, tokens: int) -> int:
        """What this lane computes until `tokens` more of `tenant`, offered now, would be done, those included: all that it has waiting
        already, and of each other tenant as much again, or what that one has."""
        own = self._tokens.get(tenant, 0) + tokens
        return own + sum(min(own, waiting) for other, waiting in self._tokens.items() if other != tenant)

    def _flows_of(self, tenant: str) -> int:
        return sum(other == tenant for other, _ in self._waiting)

    def _flow_whose_turn_it_is(self) -> Flow:
        return min(self._waiting, key=self._turns.__getitem__)
