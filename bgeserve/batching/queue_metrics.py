"""What is measured of a queue and its workers, by lane. Knows the metrics' names, and no sink: `observe` hands them on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from bgeserve.batching.batch_queue import BatchQueue
from bgeserve.observe import Observer
from bgeserve.types import Lane


class QueueMetrics:
    def __init__(self, observer: Observer | None, max_batch_tokens: int) -> None:
        self._observe = observer or Observer()
        self._max_batch_tokens = max_batch_tokens
        self._totals: Counter[str] = Counter()
        self._counting = Lock()

    def totals(self) -> Mapping[str, int]:
        """`rejected` and `expired`, since the start and over all lanes."""
        with self._counting:
            return dict(self._totals)

    def _total(self, name: str, count: int = 1) -> None:
        with self._counting:
            self._totals[name] += count

    def queue(self, queue: BatchQueue[Any], lane: Lane) -> None:
        """After a change of one lane."""
        self._observe.gauge("queued_tokens", queue.lane_tokens(lane), lane=lane)

    def batch(self, lane: Lane, costs: Sequence[int], waited_s: Sequence[float], forward_s: float, tokens_per_s: float) -> None:
        """Of one batch: its items' tokens and waits, how long its forward took, and the speed that is measured now."""
        tokens = sum(costs)
        self._observe.count("tokens_total", tokens, lane=lane)
        self._observe.count("texts_total", len(costs), lane=lane)
        self._observe.count("padding_avoided_tokens_total", len(costs) * max(costs) - tokens, lane=lane)
        for wait_s in waited_s:
            self._observe.record("wait_s", wait_s, lane=lane)
        self._observe.record("batch_tokens", tokens, lane=lane)
        self._observe.record("batch_fill_ratio", min(1.0, tokens / self._max_batch_tokens), lane=lane)
        self._observe.record("forward_s", forward_s, lane=lane)
        self._observe.gauge("tokens_per_s", tokens_per_s)

    def failed_batch(self) -> None:
        self._observe.count("failed_batches_total")

    def rejected(self, lane: Lane) -> None:
        """A call that was refused because of what waits already."""
        self._total("rejected")
        self._observe.count("rejected_total", lane=lane)

    def expired(self, lane: Lane) -> None:
        """A text whose deadline passed before it was computed."""
        self._total("expired")
        self._observe.count("expired_total", lane=lane)

    def cancelled(self, lane: Lane, texts: int) -> None:
        """Texts that were taken back before they were computed: their caller has gone."""
        self._observe.count("cancelled_total", texts, lane=lane)
