"""The threads of one model: one that tokenises, so that the workers and the event loop never do, and the executor's that compute.

Knows the way of a call through them and how long each part took. Does not know what is tokenised or computed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from math import inf
from time import monotonic
from typing import Generic, NamedTuple, TypeVar

from bgeserve import tracing
from bgeserve.batching.executor import Executor
from bgeserve.caller import Caller
from bgeserve.errors import DeadlineExceeded
from bgeserve.model_load import ModelLoad
from bgeserve.models.runtime import worker_init
from bgeserve.models.scoring import Tokenized
from bgeserve.observe import Observer
from bgeserve.scaling import Load
from bgeserve.settings import ModelSettings
from bgeserve.unmet import UnmetHeard

WARM_UP_BATCHES_PER_WORKER = 2
HEALTH_CHECK_S = 5.0

T = TypeVar("T", bound=Tokenized)
R = TypeVar("R")
S = TypeVar("S")


class Answered(NamedTuple, Generic[T, R]):
    items: Sequence[T]
    results: list[R]
    timings_ms: Mapping[str, float]
    """`tokenize` (its thread's queue included), `wait` (for workers), `forward` (all of the call's batches)."""


class Runner(Generic[T, R]):
    def __init__(self, settings: ModelSettings, compute: Callable[[list[T]], Sequence[R]], observer: Observer | None) -> None:
        self._full_warm_up_tokens = WARM_UP_BATCHES_PER_WORKER * settings.resolved_workers * settings.resolved_max_batch_tokens
        self._observe = observer or Observer()
        self._unmet = UnmetHeard()
        self._tokenizer_thread = ThreadPoolExecutor(1, thread_name_prefix="tokenize")
        self._executor: Executor[T, R] = Executor(
            compute,
            max_batch_tokens=settings.resolved_max_batch_tokens,
            bulk_share=settings.bulk_share,
            max_queue_s=settings.max_queue_s,
            workers=settings.resolved_workers,
            side_by_side=settings.resolved_workers if settings.resolved_device == "cpu" else 1,
            reserved_workers=settings.reserved_workers,
            worker_init=partial(worker_init, settings),
            wedged_after_s=settings.wedged_after_s,
            observer=observer,
        )

    def warm_up(self, items: Sequence[T]) -> None:
        """Compute full batches of copies, so that the first caller finds everything warm and the speed is known from the start.

        Raises ComputeError.
        """
        copies = [*items] * (self._full_warm_up_tokens // sum(item.cost for item in items) + 1)
        warm = self._executor.submit(copies, [item.cost for item in copies], lane="interactive", deadline=inf)
        while not wait([warm], timeout=HEALTH_CHECK_S).done:
            self._executor.check_health()
        warm.result()

    async def run(self, tokenize: Callable[[], Sequence[T]], caller: Caller) -> Answered[T, R]:
        """Raises what `tokenize` raises, ReplicaFull, ComputeError, and DeadlineExceeded by the deadline, whatever the workers do."""
        self._unmet.hear(caller, monotonic())
        self._executor.check_room(caller.lane, caller.tenant)
        started, timeout_s = monotonic(), caller.deadline.remaining_s()
        deadline = inf if timeout_s is None else started + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                items = await self.beside(tokenize)
                tokenize_s = monotonic() - started
                future = self._executor.submit(
                    items, [item.cost for item in items], lane=caller.lane, deadline=deadline, tenant=caller.tenant
                )
                computed = await asyncio.wrap_future(future)
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline of {timeout_s:.2g} s passed while this model was at work") from None
        self._observe.record("tokenize_s", tokenize_s)
        tracing.record(
            caller,
            [("tokenize", tokenize_s), ("queue", computed.wait_s), ("forward", computed.compute_s)],
            **{"bge_serve.texts": len(items), "bge_serve.tokens": sum(item.cost for item in items)},
        )
        timings_ms = {"tokenize": 1000 * tokenize_s, "wait": 1000 * computed.wait_s, "forward": 1000 * computed.compute_s}
        return Answered(items, computed.results, timings_ms)

    async def beside(self, tokenize: Callable[[], S]) -> S:
        """What a function answers that must run neither on the event loop nor on a worker: in the thread that tokenises."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenizer_thread, tokenize)

    def load(self) -> Load:
        """For autoscaling. What is being tokenised is not in it: of a call that will soon be queued, or be done."""
        return Load(
            queued_tokens=self._executor.backlog_tokens,
            waiting_tokens=self._unmet.waiting_tokens(monotonic()),
            tokens_per_s=self._executor.tokens_per_s,
            computed_tokens=self._executor.computed_tokens,
            refused_tokens=self._unmet.refused_tokens,
        )

    def current_load(self) -> ModelLoad:
        return self._executor.current_load()

    def check_health(self) -> None:
        self._executor.check_health()

    def close(self) -> None:
        self._tokenizer_thread.shutdown(cancel_futures=True)
        self._executor.close()
