"""A replica on a simulated clock: the queue is the product's own (`batching.BatchQueue`), a batch takes what its tokens take.

Stands for `batching.Executor` with one worker: what it admits, and that a batch ends for all of its texts at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

from bgeserve.batching.batch_queue import BatchQueue
from bgeserve.batching.executor import OVERDUE_SHARE
from bgeserve.batching.fair_lane import Item
from bgeserve.simulation.load import Arrival
from bgeserve.types import Lane


@dataclass(slots=True, eq=False)
class Request:
    arrival: Arrival
    deadline_s: float
    calls_left: int
    failed: bool = False


@dataclass(slots=True, eq=False)
class Call:
    request: Request
    tokens: int
    lane: Lane
    refusals: int = 0
    pieces_left: int = 0
    """Of its items at the replica that has it."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one replica. As in `settings.ModelSettings`."""

    tokens_per_s: float
    max_batch_tokens: int
    max_queue_s: float = 2.0
    bulk_share: float = 0.2
    batch_s: float = 0.0
    """What a batch takes besides its tokens."""


class Replica:
    def __init__(self, speed: Speed, asked_at_s: float) -> None:
        self.asked_at_s = asked_at_s
        self.is_running = False
        """Takes calls: it is not starting, and not leaving."""
        self.calls = 0
        """Has so many of them, waiting or computed now."""
        self.batch: list[Item[Call]] = []
        self._batch_ends_s = 0.0
        self._speed = speed
        self._queue: BatchQueue[Call] = BatchQueue(max_batch_tokens=speed.max_batch_tokens, bulk_share=speed.bulk_share)

    def backlog_tokens(self, now: float) -> float:
        return self._queue.queued_tokens + self._running_tokens(now)

    def full_for_s(self, call: Call, now: float) -> float:
        """As `Executor` admits: 0 when there is room, else the seconds until what is ahead is done."""
        running = self._running_tokens(now)
        ahead = running + self._queue.tokens_through(call.lane, "", 0)
        through = running + self._queue.tokens_through(call.lane, "", call.tokens)
        if ahead and through > self._speed.max_queue_s * self._speed.tokens_per_s:
            return ahead / self._speed.tokens_per_s
        return 0.0

    def take(self, call: Call) -> None:
        # No more pieces than batches: how many texts a call has changes little about when it is done.
        call.pieces_left = ceil(call.tokens / self._speed.max_batch_tokens)
        for n in range(call.pieces_left):
            cost = call.tokens // call.pieces_left + (n < call.tokens % call.pieces_left)
            self._queue.offer(Item(call, cost, call.lane, call.request.deadline_s))
        self.calls += 1

    def begin_batch(self, now: float) -> tuple[float, list[Item[Call]]]:
        """When the batch that begins now ends (infinity: nothing waits), and what has waited too long for it."""
        expired = self._queue.expire(now)
        self.batch = self._queue.next_batch()
        if not self.batch:
            return inf, expired
        self._batch_ends_s = now + self._speed.batch_s + sum(item.cost for item in self.batch) / self._speed.tokens_per_s
        return self._batch_ends_s, expired

    def _running_tokens(self, now: float) -> float:
        if not self.batch:
            return 0.0
        least = OVERDUE_SHARE * sum(item.cost for item in self.batch)
        return max(least, (self._batch_ends_s - now) * self._speed.tokens_per_s)
