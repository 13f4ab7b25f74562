"""The way of a call through a model's threads, whatever these do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from bgeserve.batching.runner import Runner
from bgeserve.caller import ANYONE, Caller
from bgeserve.deadline import Deadline
from bgeserve.errors import DeadlineExceeded, ReplicaFull
from bgeserve.models.tokenizing import TokenSequence
from bgeserve.settings import EmbedderSettings

WAIT_S = 20.0


class Model:
    """Computes while it is open."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.opened.set()
        self.tokenized = 0

    def tokenize(self) -> list[TokenSequence]:
        self.tokenized += 1
        time.sleep(0.01)
        return [TokenSequence(np.zeros(100, np.int32))]

    def forward(self, items: Sequence[TokenSequence]) -> list[int]:
        assert self.opened.wait(WAIT_S)
        time.sleep(0.01 * len(items))
        return [item.cost for item in items]


@contextmanager
def running(model: Model, max_queue_s: float = 60) -> Iterator[Runner[TokenSequence, int]]:
    settings = EmbedderSettings(model="m", workers=1, max_batch_tokens=100, max_queue_s=max_queue_s)
    runner: Runner[TokenSequence, int] = Runner(settings, model.forward, None)
    try:
        runner.warm_up(model.tokenize())
        yield runner
    finally:
        model.opened.set()
        runner.close()


async def queued(runner: Runner[TokenSequence, int], tokens: float) -> None:
    """Until so many wait: what runs counts less and less."""
    async with asyncio.timeout(WAIT_S):
        while runner.load().queued_tokens < tokens:  # noqa: ASYNC110  # a worker's thread tells nobody
            await asyncio.sleep(0.01)


async def test_an_answer_says_where_its_time_went() -> None:
    model = Model()
    with running(model) as runner:
        first, second = await asyncio.gather(*(runner.run(model.tokenize, ANYONE) for _ in range(2)))
    assert first.results == [100]
    assert first.timings_ms["tokenize"] >= 10
    assert first.timings_ms["forward"] >= 10
    assert second.timings_ms["tokenize"] >= 15  # one thread tokenises


async def test_a_call_ends_by_its_deadline_even_if_the_forward_never_does() -> None:
    model = Model()
    with running(model) as runner:
        model.opened.clear()
        running_call, waiting_call = (asyncio.create_task(runner.run(model.tokenize, Caller("bulk", Deadline(0.1)))) for _ in range(2))
        for call in (running_call, waiting_call):
            with pytest.raises(DeadlineExceeded, match=r"deadline of 0\.(1|0\d+) s"):  # what was left when it came in
                await asyncio.wait_for(call, WAIT_S)


async def test_what_will_be_refused_is_not_tokenised() -> None:
    model = Model()
    with running(model, max_queue_s=1e-6) as runner:
        model.opened.clear()
        call = asyncio.create_task(runner.run(model.tokenize, ANYONE))
        await queued(runner, 1)
        tokenized = model.tokenized
        with pytest.raises(ReplicaFull):
            await runner.run(model.tokenize, ANYONE)
        assert model.tokenized == tokenized
        model.opened.set()
        assert (await call).results == [100]


async def test_what_waits_was_computed_and_was_refused_is_said_for_autoscaling() -> None:
    model = Model()
    with running(model) as runner:
        before = runner.load()
        assert (before.queued_tokens, before.waiting_tokens) == (0, 0)
        assert before.tokens_per_s > 0
        model.opened.clear()
        caller = Caller("bulk", sender="an ingress", waiting_bytes=4000, refused_bytes=400)
        calls = [asyncio.create_task(runner.run(model.tokenize, caller)) for _ in range(3)]
        await queued(runner, 200)
        during = runner.load()
        assert during.queued_tokens > 0
        assert (during.waiting_tokens, during.refused_tokens) == (1000, 300)
        model.opened.set()
        await asyncio.gather(*calls)
        after = runner.load()
    assert after.queued_tokens == 0
    assert after.computed_tokens - before.computed_tokens == 300
