"""Engines on real (tiny, random) checkpoints: answers do not depend on who else asks, and the event loop never waits for a forward."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from bgeserve.caller import A_JOB, ANYONE, Caller
from bgeserve.chunking import join_chunks
from bgeserve.deadline import Deadline
from bgeserve.engine import SEGMENT_CHARACTERS, EmbedderEngine, RerankerEngine
from bgeserve.errors import CheckpointError, DeadlineExceeded, InvalidRequest, ReplicaFull, SettingsError
from bgeserve.observe import Observer
from bgeserve.settings import EmbedderSettings, RerankerSettings
from bgeserve.types import OUTPUTS, Chunking
from tests.checkpoints import TEXTS, make_bge_m3, make_reranker

LONGEST_STALL_S = 0.02


@pytest.fixture(scope="module")
def m3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bge_m3(tmp_path_factory.mktemp("m3"))


@pytest.fixture(scope="module")
def m3(m3_folder: Path) -> Generator[EmbedderEngine]:
    engine = EmbedderEngine("m3", EmbedderSettings(model=str(m3_folder), dtype="float32", cpus=2, max_queue_s=60))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Generator[RerankerEngine]:
    folder = make_reranker(tmp_path_factory.mktemp("reranker"))
    engine = RerankerEngine("r", RerankerSettings(model=str(folder), dtype="float32", cpus=2, max_queue_s=60))
    yield engine
    engine.close()


async def test_one_call_gives_every_output_and_says_what_it_cost(m3: EmbedderEngine) -> None:
    embeddings = await m3.encode(TEXTS, outputs=OUTPUTS)
    info = await m3.info()
    assert embeddings.fingerprint == info.fingerprint
    assert embeddings.dense is not None
    assert embeddings.dense.shape == (len(TEXTS), info.dimensions)
    assert embeddings.dense.dtype == np.float32
    assert embeddings.sparse is not None
    assert len(embeddings.sparse) == len(TEXTS)
    assert embeddings.multi_vector is not None
    assert [len(vectors) for vectors in embeddings.multi_vector] == [n - 1 for n in embeddings.tokens]
    assert not any(embeddings.truncated)


async def test_chunks_are_as_long_as_this_models_tokens_say(m3: EmbedderEngine) -> None:
    text = " ".join(TEXTS) * 300
    (spans,) = await m3.chunk([text], Chunking(max_tokens=100, overlap_tokens=20))
    parts = [text[start:end] for start, end in spans]
    assert len(text) > 3 * SEGMENT_CHARACTERS
    assert join_chunks(parts, [start for start, _ in spans]) == text
    tokens = (await m3.encode(parts)).tokens
    # Alone, a chunk may begin with a token more than where it stood.
    assert max(tokens) <= 100 + 2 + 2
    assert sum(tokens) / len(tokens) > 60
    with pytest.raises(InvalidRequest, match=r"chunking.max_tokens is 5000; .* takes 1024 tokens"):
        await m3.chunk([text], Chunking(5000, 0))


async def test_concurrent_callers_get_what_they_would_get_alone(m3: EmbedderEngine, reranker: RerankerEngine) -> None:
    alone = [await m3.encode([text]) for text in TEXTS]
    together = await asyncio.gather(*(m3.encode([text] * n, caller=A_JOB if n % 2 else ANYONE) for n, text in enumerate(TEXTS, 1)))
    for n, (one, many) in enumerate(zip(alone, together, strict=True), 1):
        assert one.dense is not None
        assert many.dense is not None
        np.testing.assert_allclose(many.dense, np.repeat(one.dense, n, axis=0), atol=1e-5)
    scores = await reranker.rerank("query", TEXTS)
    singles = [float((await reranker.rerank("query", [text])).raw[0]) for text in TEXTS]
    np.testing.assert_allclose(scores.raw, singles, atol=1e-4)
    assert ((scores.normalized > 0) & (scores.normalized < 1)).all()
    assert np.argsort(scores.raw).tolist() == np.argsort(scores.normalized).tolist()


async def test_callers_who_want_different_outputs_share_batches(m3: EmbedderEngine) -> None:
    dense, sparse, everything = await asyncio.gather(
        m3.encode(TEXTS), m3.encode(TEXTS, outputs=["sparse"]), m3.encode(TEXTS, outputs=OUTPUTS)
    )
    assert dense.sparse is None
    assert sparse.dense is None
    assert dense.dense is not None
    assert everything.dense is not None
    assert sparse.sparse is not None
    assert everything.sparse is not None
    np.testing.assert_allclose(dense.dense, everything.dense, atol=1e-5)
    for one, other in zip(sparse.sparse, everything.sparse, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_allclose(one.values, other.values, atol=1e-5)


async def test_no_texts_are_an_empty_answer(m3: EmbedderEngine) -> None:
    embeddings = await m3.encode([])
    assert embeddings.dense is not None
    assert embeddings.dense.shape == (0, (await m3.info()).dimensions)


async def test_a_text_over_the_limit_is_cut_and_said_so_or_refused(m3: EmbedderEngine) -> None:
    limit = (await m3.info()).max_tokens
    embeddings = await m3.encode(["short", "word " * 2 * limit])
    assert list(embeddings.truncated) == [False, True]
    assert embeddings.tokens[1] == limit
    with pytest.raises(InvalidRequest, match=rf"texts\[1\] has at least \d+ tokens; the limit is {limit}"):
        await m3.encode(["short", "word " * 2 * limit], truncate=False)


async def test_the_event_loop_never_waits_for_tokens_or_a_forward(m3: EmbedderEngine) -> None:
    longest = 0.0

    async def heartbeat() -> None:
        nonlocal longest
        while True:
            started = perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, perf_counter() - started - 0.001)

    stalls: list[float] = []
    for _ in range(5):  # the best of a few: a busy machine may deschedule the whole process, which no code can prevent
        longest = 0.0
        beating = asyncio.create_task(heartbeat())
        await m3.encode(["many words in a row " * 200] * 40, outputs=OUTPUTS)
        beating.cancel()
        stalls.append(longest)
    assert min(stalls) < LONGEST_STALL_S


async def test_a_cancelled_call_is_not_computed(m3_folder: Path) -> None:
    withdrawn: list[float] = []
    queued, done = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def sink(kind: str, name: str, value: float, tags: dict[str, str]) -> None:
        if name == "queued_tokens" and value > 0:
            loop.call_soon_threadsafe(queued.set)
        elif name == "cancelled_total":
            withdrawn.append(value)
            loop.call_soon_threadsafe(done.set)

    settings = EmbedderSettings(model=str(m3_folder), dtype="float32", cpus=2, max_queue_s=60)
    engine = await asyncio.to_thread(EmbedderEngine, "m3", settings, Observer(sink))
    try:
        queued.clear()
        call = asyncio.create_task(engine.encode(["words " * 300] * 400))
        await queued.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(done.wait(), 20)
        assert sum(withdrawn) > 300
        assert len(await engine.encode(["still there"])) == 1
    finally:
        engine.close()


async def test_a_deadline_ends_a_call(m3: EmbedderEngine) -> None:
    with pytest.raises(DeadlineExceeded):
        await m3.encode(["words " * 300] * 400, caller=Caller(deadline=Deadline(0.01)))


async def test_a_replica_that_is_full_says_when_to_come_back(m3_folder: Path) -> None:
    engine = EmbedderEngine("m3", EmbedderSettings(model=str(m3_folder), dtype="float32", cpus=1, max_queue_s=0.05))
    try:
        calls = [asyncio.create_task(engine.encode(["words " * 500] * 10)) for _ in range(40)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        engine.close()
    refused = [error for error in ended if isinstance(error, ReplicaFull)]
    assert refused
    assert all(error.retry_after_s for error in refused)
    assert any(not isinstance(error, BaseException) for error in ended)


async def test_what_a_model_lacks_is_refused_by_name(reranker: RerankerEngine, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        EmbedderEngine("e", EmbedderSettings(model=str(tmp_path / "nowhere")))
    with pytest.raises(SettingsError, match="cuda"):
        EmbedderEngine("e", EmbedderSettings(model=str(tmp_path), device="cuda", gpus=1))
    assert (await reranker.info()).role == "reranker"
    reranker.check_health()
