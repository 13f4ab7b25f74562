"""Bulk calls wait here, at whoever sends them, while as much is in flight as the replicas need: what waits elsewhere than at a replica can
still go to one that autoscaling adds, and nobody asks a full replica again and again.

Knows calls by their size and tenant. Does not know where they go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from bgeserve.batching.fair_lane import FairLane, Item
from bgeserve.deadline import Deadline
from bgeserve.errors import DeadlineExceeded
from bgeserve.types import Lane


class CallGate:
    """For one event loop."""

    def __init__(self, max_in_flight: int) -> None:
        """max_in_flight: the sizes of all calls inside together; the one that goes beyond it is still let in."""
        self._free = max_in_flight
        self._waiting: FairLane[asyncio.Future[None]] = FairLane()

    @asynccontextmanager
    async def passed(self, size: int, tenant: str, sent_as: Lane, deadline: Deadline) -> AsyncGenerator[None]:
        """Inside, one call is in flight. Tenants take turns by size, and each one's jobs with what it sent as interactive and is too large
        for that: nobody's request waits until somebody's jobs are done. Raises DeadlineExceeded."""
        size = max(1, size)
        if self._free > 0 and not self._waiting:
            self._free -= size
        else:
            await self._wait(Item(asyncio.get_running_loop().create_future(), size, tenant=tenant, flow=sent_as), deadline)
        try:
            yield
        finally:
            self._leave(size)

    async def _wait(self, item: Item[asyncio.Future[None]], deadline: Deadline) -> None:
        self._waiting.add(item)
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                await item.payload
        except (asyncio.CancelledError, TimeoutError) as gone:
            if item in self._waiting:
                self._waiting.remove(item)
            elif not item.payload.cancelled():  # let in and called off in the same moment
                self._leave(item.cost)
            if isinstance(gone, TimeoutError):
                raise DeadlineExceeded("the deadline passed before this call could be sent to a replica") from None
            raise

    def _leave(self, size: int) -> None:
        self._free += size
        while self._free > 0 and self._waiting:
            let_in = self._waiting.take()
            if not let_in.payload.done():  # one that was called off takes itself out a moment later
                self._free -= let_in.cost
                let_in.payload.set_result(None)
