"""Drives worker threads from a BatchQueue: admits, computes, and settles every future exactly once.

Knows queues, threads and failures. Does not know models: `compute` maps a batch of payloads to as many results, and may raise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Generic, TypeVar

from bgeserve.batching.batch_queue import BatchQueue
from bgeserve.batching.fair_lane import Item
from bgeserve.batching.halving import compute_by_halves
from bgeserve.batching.queue_metrics import QueueMetrics
from bgeserve.batching.rate import Rate
from bgeserve.errors import ComputeError, DeadlineExceeded, ReplicaFull, Unavailable
from bgeserve.model_load import ModelLoad
from bgeserve.observe import Observer
from bgeserve.types import Lane

P = TypeVar("P")
R = TypeVar("R")

OVERDUE_SHARE = 0.1
"""Of a batch that takes longer than foretold: it is nearly done, as far as anybody knows, and not done."""
RATE_MEMORY_BATCHES = 20
"""Full batches after which the measured speed has forgotten most of what it was before."""


@dataclass(frozen=True, slots=True)
class Computed(Generic[R]):
    """The results of one call, in its order, and what they waited for."""

    results: list[R]
    wait_s: float
    """From its submission until its first batch began."""
    compute_s: float
    """From there until its last batch ended."""


@dataclass(slots=True, eq=False)
class _Submission(Generic[P, R]):
    """The items of one call, which are queued singly and answered together."""

    future: Future[Computed[R]]
    at: float
    items: list[Item[_Part[P, R]]] = field(default_factory=list)
    results: dict[int, R] = field(default_factory=dict)
    began: float | None = None
    settled: bool = False

    def computed(self) -> Computed[R]:
        began = self.at if self.began is None else self.began
        return Computed([self.results[i] for i in range(len(self.items))], began - self.at, monotonic() - began)


@dataclass(frozen=True, slots=True)
class _Part(Generic[P, R]):
    submission: _Submission[P, R]
    index: int
    payload: P


@dataclass(frozen=True, slots=True)
class _Running:
    began: float
    tokens: int


class Executor(Generic[P, R]):
    """`workers` threads that compute batches; `worker_init` runs once in each of them. Of these, `side_by_side` really compute at a time:
    as many as there are on CPU cores; one on a GPU, where the others only prepare. `reserved_workers` of them leave bulk to the others.

    A batch that fails is tried again in halves; an item that fails alone fails its call (ComputeError).
    """

    def __init__(
        self,
        compute: Callable[[list[P]], Sequence[R]],
        *,
        max_batch_tokens: int,
        bulk_share: float,
        max_queue_s: float,
        workers: int,
        side_by_side: int,
        reserved_workers: int = 0,
        worker_init: Callable[[], None] | None = None,
        wedged_after_s: float = 120.0,
        observer: Observer | None = None,
    ) -> None:
        self._compute = compute
        self._queue: BatchQueue[_Part[P, R]] = BatchQueue(max_batch_tokens=max_batch_tokens, bulk_share=bulk_share)
        self._max_queue_s = max_queue_s
        self._workers: dict[Lane, int] = {"interactive": workers, "bulk": workers - reserved_workers}
        self._side_by_side = side_by_side
        self._worker_init = worker_init
        self._wedged_after_s = wedged_after_s
        self._metrics = QueueMetrics(observer, max_batch_tokens)
        self._changed = threading.Condition()
        self._closed = False
        self.computed_tokens = 0
        self._running: dict[int, _Running] = {}  # by thread
        self._rate = Rate(memory_tokens=RATE_MEMORY_BATCHES * max_batch_tokens)
        self._threads = [
            threading.Thread(target=self._work, args=(n < reserved_workers,), name=f"forward-{n}", daemon=True) for n in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, payloads: Sequence[P], costs: Sequence[int], *, lane: Lane, deadline: float, tenant: str = "") -> Future[Computed[R]]:
        """Queue one call's items; the future gets their results in order. Cancelling it takes back what was not computed yet.

        `deadline` is on `time.monotonic`. Raises ReplicaFull (with the seconds of backlog) when more than `max_queue_s` of work would wait;
        the future may fail with DeadlineExceeded or ComputeError.
        """
        submission: _Submission[P, R] = _Submission(Future(), monotonic())
        submission.items = [
            Item(_Part(submission, i, p), cost, lane, deadline, tenant) for i, (p, cost) in enumerate(zip(payloads, costs, strict=True))
        ]
        if not submission.items:
            submission.future.set_result(submission.computed())
            return submission.future
        with self._changed:
            if self._closed:
                raise Unavailable("this replica is shutting down", retry_after_s=1)
            self._admit(lane, tenant, sum(costs))
            for item in submission.items:
                self._queue.offer(item)
            self._changed.notify_all()
        self._metrics.queue(self._queue, lane)
        submission.future.add_done_callback(lambda future: self._withdraw(submission, lane) if future.cancelled() else None)
        return submission.future

    def check_room(self, lane: Lane, tenant: str) -> None:
        """Raises ReplicaFull where not even one token more would be accepted: nobody needs to prepare what will be refused."""
        with self._changed:
            self._admit(lane, tenant, 1)

    @property
    def backlog_tokens(self) -> float:
        """Wait or run now."""
        with self._changed:
            return self._queue.queued_tokens + self._tokens_running()

    @property
    def backlog_s(self) -> float:
        """Seconds until what waits and runs now is computed, at the measured speed; 0 before anything was measured."""
        return self._rate.seconds_for(self.backlog_tokens, self._workers["interactive"])

    @property
    def tokens_per_s(self) -> float:
        """Measured speed of all workers together; 0 before anything was measured."""
        return self._workers["interactive"] * self._rate.tokens_per_s

    def current_load(self) -> ModelLoad:
        totals = self._metrics.totals()
        return ModelLoad(
            backlog_s=self.backlog_s,
            tokens_per_s=self.tokens_per_s,
            tokens_total=self.computed_tokens,
            refused_total=totals.get("rejected", 0),
            expired_total=totals.get("expired", 0),
        )

    def check_health(self) -> None:
        """Raises ComputeError when a worker thread died or has been in one batch for longer than `wedged_after_s`."""
        with self._changed:
            running = list(self._running.values())
        if any(monotonic() - batch.began > self._wedged_after_s for batch in running):
            raise ComputeError(f"a forward pass has been running for more than {self._wedged_after_s} s")
        if not self._closed and not all(thread.is_alive() for thread in self._threads):
            raise ComputeError("a worker thread died")

    def close(self) -> None:
        """Let the batches that run end; whatever waits fails with Unavailable."""
        with self._changed:
            self._closed = True
            waiting = self._queue.drain()
            self._changed.notify_all()
        for item in waiting:
            self._fail(item, Unavailable("this replica is shutting down", retry_after_s=1))
        for thread in self._threads:
            thread.join()

    def _admit(self, lane: Lane, tenant: str, tokens: int) -> None:
        running = self._tokens_running()
        ahead = running + self._queue.tokens_through(lane, tenant, 0)
        through = running + self._queue.tokens_through(lane, tenant, tokens)
        # With nothing ahead any call is accepted: a text that takes longer than max_queue_s would otherwise never be.
        if ahead and self._rate.seconds_for(through, self._workers[lane]) > self._max_queue_s:
            ahead_s = self._rate.seconds_for(ahead, self._workers[lane])
            self._metrics.rejected(lane)
            raise ReplicaFull(
                f"{ahead:.0f} tokens are ahead on this replica ({ahead_s:.1f} s); it accepts {self._max_queue_s} s, and {tokens} more came",
                retry_after_s=ahead_s,
            )

    def _tokens_running(self) -> float:
        """What is left to compute of the batches that run, as far as the clock can tell; of one that is overdue, a little."""
        now, speed = monotonic(), self._rate.tokens_per_s
        return sum(max(OVERDUE_SHARE * batch.tokens, batch.tokens - speed * (now - batch.began)) for batch in self._running.values())

    def _withdraw(self, submission: _Submission[P, R], lane: Lane) -> None:
        with self._changed:
            withdrawn = sum(self._queue.cancel(item) for item in submission.items)
        self._metrics.cancelled(lane, withdrawn)
        self._metrics.queue(self._queue, lane)

    def _work(self, interactive_only: bool) -> None:
        if self._worker_init is not None:
            self._worker_init()
        while batch := self._take(interactive_only):
            began, tokens = monotonic(), sum(item.cost for item in batch)
            outcomes = compute_by_halves(self._compute, [item.payload.payload for item in batch], self._metrics.failed_batch)
            took_s = monotonic() - began
            with self._changed:
                del self._running[threading.get_ident()]
                self._rate.add(tokens, took_s)
                self.computed_tokens += tokens
            # Last, so that whoever has an answer does not find its own tokens still ahead of the next call.
            for item, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, ComputeError):
                    self._fail(item, outcome)
                else:
                    self._finish(item, outcome)
            waited_s = [began - item.payload.submission.at for item in batch]
            self._metrics.batch(batch[0].lane, [item.cost for item in batch], waited_s, took_s, self.tokens_per_s)
            self._metrics.queue(self._queue, batch[0].lane)

    def _take(self, interactive_only: bool) -> list[Item[_Part[P, R]]]:
        """The next batch; empty when there is never going to be one."""
        while True:
            with self._changed:
                now = monotonic()
                expired = self._queue.expire(now)
                takers = max(1, self._side_by_side - len(self._running))
                if batch := self._queue.next_batch(takers, interactive_only=interactive_only):
                    self._running[threading.get_ident()] = _Running(now, sum(item.cost for item in batch))
                    for item in batch:
                        item.payload.submission.began = item.payload.submission.began or now
                elif not expired:
                    if self._closed:
                        return []
                    self._changed.wait()
            for item in expired:
                self._metrics.expired(item.lane)
                self._fail(item, DeadlineExceeded("the deadline passed before this text was computed"))
            if batch:
                return batch

    def _finish(self, item: Item[_Part[P, R]], result: R) -> None:
        submission = item.payload.submission
        with self._changed:
            submission.results[item.payload.index] = result
            settle = not submission.settled and len(submission.results) == len(submission.items)
            submission.settled |= settle
        if settle and submission.future.set_running_or_notify_cancel():
            submission.future.set_result(submission.computed())

    def _fail(self, item: Item[_Part[P, R]], error: Exception) -> None:
        submission = item.payload.submission
        with self._changed:
            for sibling in submission.items:  # the call fails as a whole, so the rest of it would be computed for nobody
                self._queue.cancel(sibling)
            settle = not submission.settled
            submission.settled = True
        if settle and submission.future.set_running_or_notify_cancel():
            submission.future.set_exception(error)
