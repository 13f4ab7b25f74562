"""Many writers, one sync: whoever waits while an interval passes is made durable by the same flush.

Knows when a flush is due and whom it serves, not what it writes. A lone writer on an idle store does not wait for the interval.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class GroupCommit:
    def __init__(self, flush: Callable[[], Awaitable[None]], interval_s: float) -> None:
        self._flush = flush
        self._interval_s = interval_s
        self._changes = 0
        self._durable_changes = 0
        self._last_flush_s = float("-inf")
        self._next: asyncio.Task[None] | None = None

    def changed(self) -> None:
        """Say that something is being written: before the write is handed to what also runs the flush, so that no flush overtakes it."""
        self._changes += 1

    async def commit(self) -> None:
        """Return when all that was written before this call is on disk. Raises what the flush that it waited for raised."""
        if self._durable_changes >= self._changes:
            return
        if self._next is None:
            self._next = asyncio.create_task(self._flush_when_due())
        # One writer's timeout must not cancel the flush of the others.
        await asyncio.shield(self._next)

    async def _flush_when_due(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._last_flush_s + self._interval_s - loop.time())
        # From here on writers join the next flush: this one may pass by what they write.
        self._next = None
        self._last_flush_s = loop.time()
        changes = self._changes
        await self._flush()
        self._durable_changes = max(self._durable_changes, changes)
