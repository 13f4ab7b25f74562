from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from bgeserve.caller import A_JOB, Caller
from bgeserve.deadline import Deadline
from bgeserve.errors import Unavailable
from bgeserve.types import Chunking, Embeddings, ModelInfo, Scores
from deployments import handles
from deployments.handles import CALLS_PER_REPLICA, RemoteEmbedder, RemoteReranker, RemoteRetriever
from tests.deployments.fakes import AsyncHandle, FakeHandle


def embed(texts: Sequence[str], fingerprint: str = "a", **_: Any) -> Embeddings:
    """A text of n characters becomes the vector [n]."""
    dense = np.array([[len(text)] for text in texts], np.float32).reshape(len(texts), 1)
    return Embeddings(fingerprint, tokens=[1] * len(texts), truncated=[False] * len(texts), dense=dense)


def score(query: str, passages: Sequence[str], **_: Any) -> Scores:
    raw = np.array([len(passage) for passage in passages], np.float32)
    return Scores(raw, raw / 100, tokens=[1] * len(passages), truncated=[False] * len(passages))


async def test_a_request_goes_over_in_calls_of_bounded_size_and_comes_back_in_order() -> None:
    texts = ["x" * n for n in range(1, 30)]
    handle = FakeHandle([embed] * len(texts))
    made = await RemoteEmbedder(cast("Any", handle), max_call_bytes=40).encode(texts, caller=Caller(deadline=Deadline(5)))
    assert made.dense is not None
    assert made.dense[:, 0].tolist() == [len(text) for text in texts]
    assert all(sum(map(len, args[0])) <= 40 for _, args, _, _ in handle.calls)
    assert all(0 < kwargs["caller"].deadline.remaining_s() <= 5 for _, _, kwargs, _ in handle.calls)

    handle = FakeHandle([score] * len(texts))
    scores = await RemoteReranker(cast("Any", handle), max_call_bytes=40).rerank("q", texts)
    assert scores.raw.tolist() == [len(text) for text in texts]
    assert len(handle.calls) > 1


async def test_what_is_too_large_for_one_call_is_bulk_whoever_waits_for_it() -> None:
    handle = FakeHandle([embed] * 3)
    embedder = RemoteEmbedder(cast("Any", handle), max_call_bytes=10)
    await embedder.encode(["x" * 10], caller=Caller(tenant="page"))
    await embedder.encode(["x" * 10, "x" * 10], caller=Caller(tenant="page"))
    assert [kwargs["caller"].lane for _, _, kwargs, _ in handle.calls] == ["interactive", "bulk", "bulk"]
    assert {kwargs["caller"].tenant for _, _, kwargs, _ in handle.calls} == {"page"}


async def test_bulk_calls_of_all_requests_together_are_bounded_by_the_replicas_there_may_be() -> None:
    in_flight = most = 0

    async def slow(texts: Sequence[str], **_: Any) -> Embeddings:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.001)
        in_flight -= 1
        return embed(texts)

    for max_replicas in (1, 3):
        most = 0
        embedder = RemoteEmbedder(cast("Any", AsyncHandle(slow)), 1, max_replicas)
        await asyncio.gather(*(embedder.encode(["x"] * 20, caller=A_JOB) for _ in range(3)))
        assert most == CALLS_PER_REPLICA * max_replicas


async def test_an_interactive_call_passes_bulk_that_waits_for_its_turn() -> None:
    ends = asyncio.Event()

    async def encode(texts: Sequence[str], *, caller: Caller, **_: Any) -> Embeddings:
        if caller.lane == "bulk":
            await ends.wait()
        return embed(texts)

    embedder = RemoteEmbedder(cast("Any", AsyncHandle(encode)), 1)
    job = asyncio.create_task(embedder.encode(["x"] * 20))
    await asyncio.sleep(0)
    assert len(await embedder.encode(["query"[:1]])) == 1
    ends.set()
    assert len(await job) == 20


async def test_a_large_request_takes_turns_with_jobs_in_place_of_waiting_for_them() -> None:
    sent: list[str] = []

    async def encode(texts: Sequence[str], **_: Any) -> Embeddings:
        sent.extend(texts)
        await asyncio.sleep(0)
        return embed(texts)

    embedder = RemoteEmbedder(cast("Any", AsyncHandle(encode)), max_call_bytes=1)
    jobs = [embedder.encode(["j"] * 20, caller=A_JOB) for _ in range(6)]
    await asyncio.gather(*jobs, embedder.encode(["p"] * 5, caller=Caller()))
    # First goes what was let in already, then as much of the jobs as of the request.
    assert "".join(sent).rindex("p") <= CALLS_PER_REPLICA + 2 * 5
    assert len(sent) == 125


async def test_where_documents_are_cut_comes_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "MAX_GRPC_BYTES", 40)

    def chunk(texts: Sequence[str], chunking: Chunking) -> list[list[tuple[int, int]]]:
        return [[(0, len(text)), (chunking.max_tokens, chunking.overlap_tokens)] for text in texts]

    handle = FakeHandle([chunk] * 10)
    texts = ["x" * n for n in range(1, 9)]
    found = await RemoteEmbedder(cast("Any", handle), max_call_bytes=40).chunk(texts, Chunking(7, 5))
    assert found == [[(0, len(text)), (7, 5)] for text in texts]
    assert 1 < len(handle.calls) < len(texts)


async def test_no_texts_are_still_answered_with_the_fingerprint() -> None:
    made = await RemoteEmbedder(cast("Any", FakeHandle([embed])), max_call_bytes=40).encode([])
    assert (made.fingerprint, len(made)) == ("a", 0)


def embed_b(texts: Sequence[str], **_: Any) -> Embeddings:
    return embed(texts, fingerprint="b")


async def test_what_met_another_version_of_the_model_than_the_rest_is_asked_again_and_nothing_else() -> None:
    handle = FakeHandle([embed, embed_b, embed, embed_b, embed])
    made = await RemoteEmbedder(cast("Any", handle), max_call_bytes=2).encode(["x", "yy", "z" * 3])
    assert made.fingerprint == "a"
    assert made.dense is not None
    assert made.dense[:, 0].tolist() == [1, 2, 3]
    assert [args[0] for _, args, *_ in handle.calls] == [["x"], ["yy"], ["zzz"], ["yy"], ["yy"]]


async def test_scores_of_two_versions_of_a_reranker_are_never_one_answer() -> None:
    def score_anew(query: str, passages: Sequence[str], **_: Any) -> Scores:
        return replace(score(query, passages), version="new")

    handle = FakeHandle([score, score_anew, score_anew, score_anew])
    made = await RemoteReranker(cast("Any", handle), max_call_bytes=2).rerank("q", ["x", "yy", "z" * 3])
    assert (made.version, made.raw.tolist()) == ("new", [1, 2, 3])
    assert len(handle.calls) == 4


async def test_what_is_remembered_of_a_model_is_forgotten_when_another_answers() -> None:
    def info(fingerprint: str) -> ModelInfo:
        return ModelInfo("m", "embedder", "m", 512, fingerprint=fingerprint)

    embedder = RemoteEmbedder(
        cast("Any", FakeHandle([info("a"), lambda texts, **_: embed(texts, fingerprint="b"), info("b")])), max_call_bytes=99
    )
    assert (await embedder.info()).fingerprint == "a"
    assert (await embedder.info()).fingerprint == "a"
    await embedder.encode(["x"])
    assert (await embedder.info()).fingerprint == "b"


class TestAnOwnerThatDoesNotAnswer:
    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handles, "OWNER_WAIT_S", 0.01)

    async def test_is_waited_for_while_one_runs(self) -> None:
        answer = asyncio.Event()
        asked: list[bool] = []

        async def is_owned() -> bool:
            asked.append(True)
            if len(asked) == 3:
                answer.set()
            return True

        handle = FakeHandle([answer])
        await RemoteRetriever(cast("Any", handle), is_owned).collections()
        assert len(asked) == 3
        assert not handle.responses[0].was_cancelled

    async def test_is_unavailable_where_none_runs_and_what_was_sent_is_called_off(self) -> None:
        async def is_owned() -> bool:
            return False

        handle = FakeHandle([asyncio.Event()])
        with pytest.raises(Unavailable, match="no other has taken over yet") as caught:
            await RemoteRetriever(cast("Any", handle), is_owned).delete("default", ["a"])
        assert caught.value.retry_after_s == handles.OWNER_RETRY_S
        await asyncio.sleep(0)
        assert handle.responses[0].was_cancelled


async def test_each_call_of_a_large_request_tells_how_much_of_it_waits() -> None:
    handle = FakeHandle([embed] * 20)
    await RemoteEmbedder(cast("Any", handle), max_call_bytes=10).encode(["x" * 10] * 20)
    waiting = [kwargs["caller"].waiting_bytes for _, _, kwargs, _ in handle.calls]
    assert waiting[0] >= 10 * (20 - CALLS_PER_REPLICA)
    assert waiting == sorted(waiting, reverse=True)
    assert waiting[-1] == 0
    assert len({kwargs["caller"].sender for _, _, kwargs, _ in handle.calls}) == 1
