"""Drives worker threads from a BatchQueue: admits, computes, and settles every future exactly once.

Knows queues, threads and failures. Does not know models: `compute` maps a batch of payloads to as many results, and may raise.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import exp
from time import monotonic
from typing import Generic, TypeVar

from bgeserve.batching import BatchQueue, Item
from bgeserve.errors import ComputeError, DeadlineExceeded, ReplicaFull, Unavailable
from bgeserve.observe import Observer
from bgeserve.types import Lane

P = TypeVar("P")
R = TypeVar("R")

RATE_MEMORY_BATCHES = 20
"""Full batches after which the measured speed has forgotten most of what it was before."""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Submission(Generic[P, R]):
    """The items of one call, which are queued singly and answered together."""

    future: Future[list[R]]
    items: list[Item[_Part[P, R]]] = field(default_factory=list)
    results: dict[int, R] = field(default_factory=dict)
    settled: bool = False


@dataclass(frozen=True, slots=True)
class _Part(Generic[P, R]):
    submission: _Submission[P, R]
    index: int
    payload: P


class Executor(Generic[P, R]):
    """`workers` threads that compute batches; `worker_init` runs once in each of them. Of these, `side_by_side` really compute at a time:
    as many as there are on CPU cores; one on a GPU, where the others only prepare.

    A batch that fails is halved and tried again, down to single items, so out-of-memory costs speed, and a poison item
    fails alone (ComputeError).
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
        worker_init: Callable[[], None] | None = None,
        wedged_after_s: float = 120.0,
        observer: Observer | None = None,
    ) -> None:
        self._compute = compute
        self._queue: BatchQueue[_Part[P, R]] = BatchQueue(max_batch_tokens=max_batch_tokens, bulk_share=bulk_share)
        self._max_queue_s = max_queue_s
        self._workers = workers
        self._side_by_side = side_by_side
        self._worker_init = worker_init
        self._wedged_after_s = wedged_after_s
        self._observe = observer or Observer()
        self._changed = threading.Condition()
        self._closed = False
        self._running: dict[int, tuple[float, int]] = {}  # thread -> (when its batch began, tokens)
        self._rate = _Rate(workers, memory_tokens=RATE_MEMORY_BATCHES * max_batch_tokens)
        self._threads = [threading.Thread(target=self._work, name=f"forward-{n}", daemon=True) for n in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, payloads: Sequence[P], costs: Sequence[int], *, lane: Lane, deadline: float) -> Future[list[R]]:
        """Queue one call's items; the future gets their results in order. Cancelling it takes back what was not computed yet.

        `deadline` is on `time.monotonic`. Raises ReplicaFull (with the seconds of backlog) when more than `max_queue_s` of work would wait;
        the future may fail with DeadlineExceeded or ComputeError.
        """
        submission: _Submission[P, R] = _Submission(Future())
        submission.items = [
            Item(_Part(submission, i, p), cost, lane, deadline) for i, (p, cost) in enumerate(zip(payloads, costs, strict=True))
        ]
        if not submission.items:
            submission.future.set_result([])
            return submission.future
        with self._changed:
            if self._closed:
                raise Unavailable("this replica is shutting down", retry_after_s=1)
            self._admit(sum(costs))
            for item in submission.items:
                self._queue.offer(item)
            self._changed.notify(len(submission.items))
        self._observe.gauge("queued_tokens", self._queue.queued_tokens)
        submission.future.add_done_callback(lambda future: self._withdraw(submission) if future.cancelled() else None)
        return submission.future

    @property
    def backlog_s(self) -> float:
        """Seconds until what waits and runs now is computed, at the measured speed; 0 before anything was measured."""
        with self._changed:
            return self._rate.seconds_for(self._tokens_ahead())

    @property
    def tokens_per_s(self) -> float:
        """Measured speed of all workers together; 0 before anything was measured."""
        return self._rate.tokens_per_s

    def check_health(self) -> None:
        """Raises ComputeError when a worker thread died or has been in one batch for longer than `wedged_after_s`."""
        with self._changed:
            running = list(self._running.values())
        if any(monotonic() - began > self._wedged_after_s for began, _ in running):
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

    def _admit(self, tokens: int) -> None:
        ahead = self._tokens_ahead()
        backlog_s = self._rate.seconds_for(ahead)
        # With nothing ahead any call is accepted: a text that takes longer than max_queue_s would otherwise never be.
        if ahead and self._rate.seconds_for(ahead + tokens) > self._max_queue_s:
            self._observe.count("rejected_total")
            raise ReplicaFull(
                f"{ahead} tokens are ahead on this replica ({backlog_s:.1f} s), it accepts {self._max_queue_s} s; {tokens} more were sent",
                retry_after_s=backlog_s,
            )

    def _tokens_ahead(self) -> int:
        return self._queue.queued_tokens + sum(tokens for _, tokens in self._running.values())

    def _withdraw(self, submission: _Submission[P, R]) -> None:
        with self._changed:
            withdrawn = sum(self._queue.cancel(item) for item in submission.items)
        self._observe.count("withdrawn_total", withdrawn)

    def _work(self) -> None:
        if self._worker_init is not None:
            self._worker_init()
        while batch := self._take():
            tokens = sum(item.cost for item in batch)
            began = monotonic()
            outcomes = self._run(batch)
            with self._changed:
                del self._running[threading.get_ident()]
                self._rate.add(tokens, monotonic() - began)
            # Last, so that whoever has an answer does not find its own tokens still ahead of the next call.
            for item, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, ComputeError):
                    self._fail(item, outcome)
                else:
                    self._finish(item, outcome)
            self._observe.gauge("queued_tokens", self._queue.queued_tokens)
            self._observe.record("batch_tokens", tokens, lane=batch[0].lane)
            self._observe.record("forward_s", monotonic() - began)

    def _take(self) -> list[Item[_Part[P, R]]]:
        while True:
            with self._changed:
                expired = self._queue.expire(monotonic())
                batch = self._queue.next_batch(takers=max(1, self._side_by_side - len(self._running)))
                if batch:
                    self._running[threading.get_ident()] = (monotonic(), sum(item.cost for item in batch))
                elif not expired:
                    if self._closed:
                        return []
                    self._changed.wait()
            for item in expired:
                self._observe.count("expired_total")
                self._fail(item, DeadlineExceeded("the deadline passed before this text was computed"))
            if batch:
                return batch

    def _run(self, batch: list[Item[_Part[P, R]]]) -> list[R | ComputeError]:
        """What became of each item."""
        try:
            return list(self._compute([item.payload.payload for item in batch]))
        except Exception as error:  # noqa: BLE001 - whatever a model raises must end in a future, never in a dead worker
            return self._retry_smaller(batch, error)

    def _retry_smaller(self, batch: list[Item[_Part[P, R]]], error: Exception) -> list[R | ComputeError]:
        self._observe.count("failed_batches_total")
        if len(batch) == 1:
            log.exception("a text of %d tokens cannot be computed", batch[0].cost, exc_info=error)
            return [ComputeError(f"the model failed on this text of {batch[0].cost} tokens: {type(error).__name__}: {error}")]
        middle = len(batch) // 2
        return self._run(batch[:middle]) + self._run(batch[middle:])

    def _finish(self, item: Item[_Part[P, R]], result: R) -> None:
        submission = item.payload.submission
        with self._changed:
            submission.results[item.payload.index] = result
            settle = not submission.settled and len(submission.results) == len(submission.items)
            submission.settled |= settle
        if settle and submission.future.set_running_or_notify_cancel():
            submission.future.set_result([submission.results[i] for i in range(len(submission.items))])

    def _fail(self, item: Item[_Part[P, R]], error: Exception) -> None:
        submission = item.payload.submission
        with self._changed:
            for sibling in submission.items:  # the call fails as a whole, so the rest of it would be computed for nobody
                self._queue.cancel(sibling)
            settle = not submission.settled
            submission.settled = True
        if settle and submission.future.set_running_or_notify_cancel():
            submission.future.set_exception(error)


class _Rate:
    """Tokens per second of all workers together, forgetting by tokens, so that a few tiny batches say little about the speed under load."""

    def __init__(self, workers: int, memory_tokens: int) -> None:
        self._workers = workers
        self._memory_tokens = memory_tokens
        self._tokens = 0.0
        self._busy_s = 0.0

    def add(self, tokens: int, busy_s: float) -> None:
        kept = exp(-tokens / self._memory_tokens)
        self._tokens = self._tokens * kept + tokens
        self._busy_s = self._busy_s * kept + busy_s

    @property
    def tokens_per_s(self) -> float:
        return self._workers * self._tokens / self._busy_s if self._busy_s > 0 else 0.0

    def seconds_for(self, tokens: int) -> float:
        return tokens / self.tokens_per_s if self._busy_s > 0 else 0.0
