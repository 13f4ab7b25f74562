"""The flow of a search: which stage gets what, and what the answer says. Stages are scripted; their real selves have tests of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from bgeserve.caller import Caller
from bgeserve.deadline import Deadline
from bgeserve.errors import (
    BgeServeError,
    ComputeError,
    DeadlineExceeded,
    FingerprintMismatch,
    InvalidRequest,
    Overloaded,
    ReplicaFull,
    Unavailable,
)
from bgeserve.filters import Equals
from bgeserve.index_embedders import IndexEmbedders
from bgeserve.observe import Observer
from bgeserve.protocols import Reranker, SearchRequest
from bgeserve.search import SearchPipeline, blend
from bgeserve.settings import FusionSettings, SearchSettings
from bgeserve.types import Embeddings, Hit, Leg, ModelInfo, Query, Scores, SparseVector


@dataclass
class ScriptedEmbedder:
    calls: list[dict[str, Any]] = field(default_factory=list)
    fingerprint: str = "model-1"

    async def info(self) -> ModelInfo:
        return ModelInfo("e", "embedder", "m", 512, fingerprint=self.fingerprint)

    async def encode(self, texts: Sequence[str], **options: Any) -> Embeddings:
        self.calls.append({"texts": list(texts), **options})
        n = len(texts)
        sparse = [SparseVector(np.array([i], np.uint32), np.ones(1, np.float32)) for i in range(n)]
        return Embeddings(
            self.fingerprint,
            tokens=[3] * n,
            truncated=[text == "long" for text in texts],
            dense=np.arange(n, dtype=np.float32)[:, None] if "dense" in options["outputs"] else None,
            sparse=sparse if "sparse" in options["outputs"] else None,
            multi_vector=[np.full((2, 1), i, np.float32) for i in range(n)] if "multi_vector" in options["outputs"] else None,
        )


def hit(id: str, fused: float) -> Hit:
    return Hit(id, f"text of {id}", fused, {}, {"dense": fused, "fused": fused}, {"dense": 1})


@dataclass
class ScriptedRetriever:
    hits: list[Hit]
    calls: list[dict[str, Any]] = field(default_factory=list)
    mismatches: int = 0

    async def retrieve(self, collection: str, queries: Sequence[Query], **options: Any) -> list[list[Hit]]:
        self.calls.append({"collection": collection, "queries": queries, **options})
        if self.mismatches:
            self.mismatches -= 1
            raise FingerprintMismatch("another model")
        return [self.hits[: options["limit"]] for _ in queries]


@dataclass
class ScriptedReranker:
    scores: dict[str, float]
    calls: list[tuple[str, list[str]]] = field(default_factory=list)

    async def info(self) -> ModelInfo:
        return ModelInfo("r", "reranker", "m", 512)

    async def rerank(self, query: str, passages: Sequence[str], **options: Any) -> Scores:
        self.calls.append((query, list(passages)))
        normalized = np.array([self.scores[passage.removeprefix("text of ")] for passage in passages], np.float32)
        return Scores(normalized, normalized, tokens=[10] * len(passages), truncated=[False] * len(passages))


HITS = [hit("a", 0.9), hit("b", 0.5), hit("c", 0.1)]
RERANKED = {"a": 0.2, "b": 0.9, "c": 0.6}


def pipeline(
    embedder: ScriptedEmbedder,
    retriever: ScriptedRetriever,
    rerankers: dict[str, Reranker] | None = None,
    observer: Observer | None = None,
    **settings: Any,
) -> SearchPipeline:
    embedders: Any = IndexEmbedders(embedder, retriever)  # type: ignore[arg-type]
    return SearchPipeline(embedders, retriever, rerankers or {}, SearchSettings(**settings), observer)  # type: ignore[arg-type]


async def test_hybrid_embeds_the_query_and_fuses_the_settings_legs() -> None:
    embedder, retriever = ScriptedEmbedder(), ScriptedRetriever(HITS)
    settings = {"legs": ("dense", "full_text"), "candidates": 40, "fusion": FusionSettings(method="weighted", weights={"dense": 2})}
    answer = await pipeline(embedder, retriever, **settings).search(
        SearchRequest(["q"], collection="docs", filter=Equals("module", "gzip"), top_k=2)
    )
    assert [h.id for h in answer.results[0]] == ["a", "b"]
    assert embedder.calls[0]["input_type"] == "query"
    assert embedder.calls[0]["outputs"] == ("dense",)
    call = retriever.calls[0]
    assert (call["collection"], call["legs"], call["candidates"], call["limit"]) == ("docs", ("dense", "full_text"), 40, 2)
    assert (call["fusion"].method, call["fusion"].weights, call["filter"]) == ("weighted", {"dense": 2}, Equals("module", "gzip"))
    assert call["fingerprint"] == "model-1"
    assert set(answer.timings_ms) == {"embed", "retrieve"}
    assert answer.tokens == {"embed": 3}


async def test_full_text_alone_needs_no_model() -> None:
    embedder, retriever = ScriptedEmbedder(), ScriptedRetriever(HITS)
    await pipeline(embedder, retriever).search(SearchRequest(["q"], mode="full_text"))
    assert embedder.calls == []
    assert retriever.calls[0]["fingerprint"] is None
    assert retriever.calls[0]["queries"] == [Query("q")]


async def test_sparse_mode_asks_for_lexical_weights_only() -> None:
    embedder, retriever = ScriptedEmbedder(), ScriptedRetriever(HITS)
    await pipeline(embedder, retriever).search(SearchRequest(["q"], mode="sparse"))
    assert embedder.calls[0]["outputs"] == ("sparse",)
    query = retriever.calls[0]["queries"][0]
    assert query.dense is None
    assert query.sparse is not None


async def test_multi_vector_is_a_leg_of_hybrid_beside_those_that_find() -> None:
    embedder, retriever = ScriptedEmbedder(), ScriptedRetriever(HITS)
    await pipeline(embedder, retriever, legs=("dense", "full_text", "multi_vector")).search(SearchRequest(["q", "r"]))
    assert embedder.calls[0]["outputs"] == ("dense", "multi_vector")
    assert retriever.calls[0]["legs"] == ("dense", "full_text", "multi_vector")
    np.testing.assert_array_equal(retriever.calls[0]["queries"][1].multi_vector, [[1], [1]])


@pytest.mark.parametrize("legs", [("multi_vector", "dense", "full_text"), ("dense", "full_text")])
async def test_multi_vector_mode_ranks_alone_what_the_settings_other_legs_find(legs: tuple[Leg, ...]) -> None:
    embedder, retriever = ScriptedEmbedder(), ScriptedRetriever(HITS)
    search = pipeline(embedder, retriever, legs=legs, fusion=FusionSettings(weights={"dense": 2, "multi_vector": 3}, rrf_k=7))
    await search.search(SearchRequest(["q"], mode="multi_vector"))
    call = retriever.calls[0]
    assert call["legs"] == ("dense", "full_text", "multi_vector")
    assert [call["fusion"].weights[leg] for leg in call["legs"]] == [0, 0, 1]
    assert call["fusion"].rrf_k == 7


def test_legs_that_find_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="only multi_vector, which ranks what other legs find"):
        SearchSettings(legs=("multi_vector",))


async def test_reranking_takes_the_fused_top_and_orders_it_anew() -> None:
    embedder, retriever, reranker = ScriptedEmbedder(), ScriptedRetriever(HITS), ScriptedReranker(RERANKED)
    search = pipeline(embedder, retriever, {"r": reranker}, reranker="r", rerank_top=3)
    answer = await search.search(SearchRequest(["q"], top_k=2))
    assert reranker.calls == [("q", ["text of a", "text of b", "text of c"])]
    assert [(h.id, round(h.score, 3)) for h in answer.results[0]] == [("b", 0.9), ("c", 0.6)]
    assert answer.results[0][0].scores == pytest.approx({"dense": 0.5, "fused": 0.5, "rerank": 0.9})
    assert answer.tokens == {"embed": 3, "rerank": 30}
    assert set(answer.timings_ms) == {"embed", "retrieve", "rerank"}


@pytest.mark.parametrize(("asked", "reranked"), [(None, True), (True, True), ("r", True), (False, False)])
async def test_a_request_chooses_whether_to_rerank(asked: bool | str | None, reranked: bool) -> None:
    reranker = ScriptedReranker(RERANKED)
    search = pipeline(ScriptedEmbedder(), ScriptedRetriever(HITS), {"r": reranker}, reranker="r")
    await search.search(SearchRequest(["q"], rerank=asked))
    assert bool(reranker.calls) == reranked


async def test_an_impossible_reranker_is_named() -> None:
    search = pipeline(ScriptedEmbedder(), ScriptedRetriever(HITS), {"r": ScriptedReranker({}), "s": ScriptedReranker({})})
    with pytest.raises(InvalidRequest, match=r"'t'; the rerankers of this service are \['r', 's'\]"):
        await search.search(SearchRequest(["q"], rerank="t"))
    with pytest.raises(InvalidRequest, match="must name one of"):
        await search.search(SearchRequest(["q"], rerank=True))


async def test_a_page_beyond_rerank_top_is_reranked_too() -> None:
    hits = [hit(f"{n:02}", 1 - n / 100) for n in range(40)]
    reranker = ScriptedReranker({h.id: h.score for h in hits})
    search = pipeline(ScriptedEmbedder(), ScriptedRetriever(hits), {"r": reranker}, reranker="r", rerank_top=10, candidates=20)
    answer = await search.search(SearchRequest(["q"], top_k=5, offset=25))
    assert [h.id for h in answer.results[0]] == ["25", "26", "27", "28", "29"]


async def test_min_score_and_offset_cut_the_final_list() -> None:
    search = pipeline(ScriptedEmbedder(), ScriptedRetriever(HITS))
    answer = await search.search(SearchRequest(["q"], min_score=0.5, offset=1))
    assert [h.id for h in answer.results[0]] == ["b"]


async def test_many_queries_share_one_embedding_call_and_keep_their_order() -> None:
    embedder, reranker = ScriptedEmbedder(), ScriptedReranker(RERANKED)
    search = pipeline(embedder, ScriptedRetriever(HITS), {"r": reranker}, reranker="r")
    answer = await search.search(SearchRequest(["long", "two", "three"]))
    assert len(embedder.calls) == 1
    assert len(answer.results) == 3
    assert sorted(query for query, _ in reranker.calls) == ["long", "three", "two"]
    assert answer.truncated == {"embed": True, "rerank": False}
    assert answer.tokens == {"embed": 9, "rerank": 90}


async def test_a_mismatch_in_a_rollout_is_retried_once_and_a_lasting_one_is_told() -> None:
    embedder = ScriptedEmbedder()
    answer = await pipeline(embedder, ScriptedRetriever(HITS, mismatches=1)).search(SearchRequest(["q"]))
    assert len(answer.results[0]) == 3
    assert len(embedder.calls) == 2
    with pytest.raises(FingerprintMismatch):
        await pipeline(embedder, ScriptedRetriever(HITS, mismatches=2)).search(SearchRequest(["q"]))


async def test_nothing_found_is_an_answer_and_calls_no_reranker() -> None:
    reranker = ScriptedReranker({})
    answer = await pipeline(ScriptedEmbedder(), ScriptedRetriever([]), {"r": reranker}, reranker="r").search(SearchRequest(["q"]))
    assert answer.results == [[]]
    assert reranker.calls == []


async def test_every_stage_is_told_who_waits_and_for_how_long() -> None:
    class Slow(ScriptedRetriever):
        async def retrieve(self, collection: str, queries: Sequence[Query], **options: Any) -> list[list[Hit]]:
            await asyncio.sleep(0.05)
            return await super().retrieve(collection, queries, **options)

    class Punctual(ScriptedReranker):
        async def rerank(self, query: str, passages: Sequence[str], **options: Any) -> Scores:
            options["caller"].deadline.remaining_s()
            return await super().rerank(query, passages, **options)

    embedder, caller = ScriptedEmbedder(), Caller("bulk", Deadline(0.02), "nightly")
    search = pipeline(embedder, Slow(HITS), {"r": Punctual(RERANKED)}, reranker="r")
    with pytest.raises(DeadlineExceeded, match=r"0\.02 s"):
        await search.search(SearchRequest(["q"], caller=caller))
    assert embedder.calls[0]["caller"] == caller


@dataclass
class FailingReranker(ScriptedReranker):
    failure: Exception | None = None
    """None: it never answers."""

    async def rerank(self, query: str, passages: Sequence[str], **options: Any) -> Scores:
        await super().rerank(query, passages, **options)
        if self.failure is not None and query != "fine":
            raise self.failure
        if self.failure is None:
            await asyncio.sleep(3600)
        return await super().rerank(query, passages, **options)


DOWN = [Unavailable("gone"), Overloaded("busy"), ReplicaFull("full"), DeadlineExceeded("late"), None]


@pytest.mark.parametrize("failure", DOWN, ids=lambda failure: type(failure).__name__)
async def test_where_the_settings_say_so_a_search_whose_reranker_is_down_is_answered_as_retrieved(failure: Exception | None) -> None:
    counted: list[tuple[str, float, dict[str, str]]] = []
    observer = Observer(lambda kind, name, value, tags: counted.append((name, value, tags)))
    search = pipeline(
        *(ScriptedEmbedder(), ScriptedRetriever(HITS), {"r": FailingReranker(RERANKED, failure=failure)}),
        observer=observer,
        reranker="r",
        rerank_within_s=0.05,
    )
    answer = await search.search(SearchRequest(["q", "fine"], top_k=2))
    # Not the one query with the reranker's scores and the other without.
    assert answer.results == [HITS[:2], HITS[:2]]
    assert list(answer.degraded) == ["rerank"]
    assert set(answer.timings_ms) == {"embed", "retrieve", "rerank"}
    assert counted == [("degraded_total", 1, {"stage": "rerank"})]


async def test_it_is_answered_in_time_for_its_own_deadline() -> None:
    search = pipeline(ScriptedEmbedder(), ScriptedRetriever(HITS), {"r": FailingReranker(RERANKED)}, reranker="r", rerank_within_s=3600)
    caller = Caller(deadline=Deadline(0.2))
    assert list((await search.search(SearchRequest(["q"], caller=caller))).degraded) == ["rerank"]
    caller.deadline.remaining_s()


@pytest.mark.parametrize("failure", [ComputeError("a bug"), InvalidRequest("too long"), TimeoutError("somebody else's")], ids=repr)
async def test_what_is_not_an_outage_does_not_degrade_a_search(failure: Exception) -> None:
    reranker = FailingReranker(RERANKED, failure=failure)
    search = pipeline(ScriptedEmbedder(), ScriptedRetriever(HITS), {"r": reranker}, reranker="r", rerank_within_s=5)
    with pytest.raises(type(failure)):
        await search.search(SearchRequest(["q"]))


@pytest.mark.parametrize(("settings", "asked"), [({}, {}), ({"rerank_within_s": 5}, {"min_score": 0.5})])
async def test_a_search_fails_with_its_reranker_unless_the_settings_allow_otherwise(settings: Any, asked: Any) -> None:
    failure = Unavailable("gone", retry_after_s=3)
    reranker = FailingReranker(RERANKED, failure=failure)
    search = pipeline(ScriptedEmbedder(), ScriptedRetriever(HITS), {"r": reranker}, reranker="r", **settings)
    with pytest.raises(BgeServeError) as raised:
        await search.search(SearchRequest(["q"], **asked))
    assert raised.value is failure


async def test_a_reranked_search_is_not_degraded() -> None:
    search = pipeline(ScriptedEmbedder(), ScriptedRetriever(HITS), {"r": ScriptedReranker(RERANKED)}, reranker="r", rerank_within_s=5)
    answer = await search.search(SearchRequest(["q"]))
    assert [h.id for h in answer.results[0]] == ["b", "c", "a"]
    assert answer.degraded == []


def test_blending_weighs_the_reranker_against_the_fused_score() -> None:
    assert [h.id for h in blend(HITS, [0.2, 0.9, 0.6], 1)] == ["b", "c", "a"]
    assert [h.id for h in blend(HITS, [0.2, 0.9, 0.6], 0.01)] == ["a", "b", "c"]
    half = {h.id: h.score for h in blend(HITS, [0.2, 0.9, 0.6], 0.5)}
    assert half == pytest.approx({"a": 0.5 * 0.2 + 0.5, "b": 0.5 * 0.9 + 0.5 * 0.5, "c": 0.5 * 0.6})
    assert [h.id for h in blend([hit("z", 0.3), hit("y", 0.3)], [0.5, 0.5], 0.5)] == ["y", "z"]
