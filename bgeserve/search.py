"""Search, top to bottom: embed -> retrieve -> rerank.

Knows the order of the stages and what each hands to the next. Does not know where a stage runs: each may be a hop away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter

import numpy as np

from bgeserve import tracing
from bgeserve.errors import DeadlineExceeded, FingerprintMismatch, InvalidRequest, Overloaded, Unavailable
from bgeserve.fusion import Fusion
from bgeserve.index_embedders import IndexEmbedders
from bgeserve.observe import Observer
from bgeserve.protocols import Reranker, Retriever, SearchRequest
from bgeserve.settings import SearchSettings
from bgeserve.splitting import gather_bounded
from bgeserve.types import EmbedderOptions, Embeddings, Hit, Leg, Mode, Output, Query, Scores, SearchAnswer, titled

MAX_QUERIES_IN_FLIGHT = 8
"""Queries of one request that are reranked at a time."""
RERANK_SHARE = 0.9
"""Of the time that is left, when there must be an answer without the reranker too: the rest is for sending it."""


class SearchPipeline:
    def __init__(
        self,
        embedders: IndexEmbedders,
        retriever: Retriever,
        rerankers: Mapping[str, Reranker],
        settings: SearchSettings,
        observer: Observer | None = None,
    ) -> None:
        self._embedders = embedders
        self._retriever = retriever
        self._rerankers = rerankers
        self._settings = settings
        self._observe = observer or Observer()
        self._fusion = Fusion(settings.fusion.method, settings.fusion.weights, settings.fusion.rrf_k)

    async def search(self, request: SearchRequest) -> SearchAnswer:
        """The best chunks for each query, with what every stage thought of them.

        Raises InvalidRequest, NotFound, UnknownModel, FingerprintMismatch, Overloaded, Unavailable, DeadlineExceeded.
        """
        plan = self._plan(request)
        journal = _Journal()
        try:
            found = await self._embed_and_retrieve(request, plan, journal)
        except FingerprintMismatch:
            # An alias names another model's collection by now, or the query met the other version of a rollout: both are settled by
            # looking again, once. A second mismatch is the index's.
            self._embedders.forget(request.collection)
            found = await self._embed_and_retrieve(request, plan, journal)
        if plan.reranker is not None:
            found = await self._rerank_or_degrade(request, plan.reranker, found, journal)
        results = [_cut(hits, request) for hits in found]
        return SearchAnswer(results, journal.timings_ms, journal.tokens, journal.truncated, journal.degraded)

    async def _embed_and_retrieve(self, request: SearchRequest, plan: _Plan, journal: _Journal) -> list[list[Hit]]:
        with journal.stage("embed"):
            collection, queries, fingerprint = await self._embed(request, plan, journal)
        with journal.stage("retrieve"):
            return await self._retriever.retrieve(
                collection,
                queries,
                fingerprint=fingerprint,
                legs=plan.legs,
                fusion=plan.fusion,
                candidates=plan.candidates,
                limit=plan.limit,
                filter=request.filter,
            )

    async def _embed(self, request: SearchRequest, plan: _Plan, journal: _Journal) -> tuple[str, list[Query], str | None]:
        """The collection that is searched, the queries for it, and the fingerprint of their vectors, if they need any."""
        if not plan.outputs:
            return request.collection, [Query(text) for text in request.queries], None
        collection, embedder = await self._embedders.of(request.collection)
        embeddings = await embedder.encode(
            request.queries,
            outputs=plan.outputs,
            input_type="query",
            options=None if request.instruction is None else EmbedderOptions(instruction=request.instruction),
            truncate=request.truncate,
            caller=request.caller,
        )
        journal.count("embed", embeddings)
        queries = [_query(text, embeddings, i) for i, text in enumerate(request.queries)]
        return collection, queries, embeddings.fingerprint

    async def _rerank_or_degrade(
        self, request: SearchRequest, reranker: Reranker, found: list[list[Hit]], journal: _Journal
    ) -> list[list[Hit]]:
        """All of the request's queries, or none: scores of two kinds in one answer could not be told apart."""
        within_s = self._settings.rerank_within_s
        if within_s is None or request.min_score is not None:
            return await self._rerank(request, reranker, found, journal)
        left_s = request.caller.deadline.remaining_s()
        timer = asyncio.timeout(within_s if left_s is None else min(within_s, RERANK_SHARE * left_s))
        try:
            async with timer:
                return await self._rerank(request, reranker, found, journal)
        except (Unavailable, Overloaded, DeadlineExceeded):
            pass
        except TimeoutError:
            if not timer.expired():
                raise
        self._observe.count("degraded_total", stage="rerank")
        journal.degraded.append("rerank")
        return found

    async def _rerank(
        self, request: SearchRequest, reranker: Reranker, found: Sequence[Sequence[Hit]], journal: _Journal
    ) -> list[list[Hit]]:
        async def scored(query: str, hits: Sequence[Hit]) -> list[Hit]:
            if not hits:
                return []
            scores = await reranker.rerank(
                query,
                [titled(hit.title, hit.text) for hit in hits],
                truncate=request.truncate,
                caller=request.caller,
            )
            journal.count("rerank", scores)
            return blend(hits, [float(score) for score in scores.normalized], self._settings.rerank_weight)

        with journal.stage("rerank"):
            calls = [partial(scored, query, hits) for query, hits in zip(request.queries, found, strict=True)]
            return await gather_bounded(calls, MAX_QUERIES_IN_FLIGHT)

    def _plan(self, request: SearchRequest) -> _Plan:
        settings = self._settings
        legs = _legs(request.mode, settings.legs)
        wanted = request.offset + request.top_k
        reranker = self._reranker(request.rerank)
        limit = wanted if reranker is None else max(wanted, request.rerank_top or settings.rerank_top)
        return _Plan(
            legs=legs,
            fusion=self._fusion.by("multi_vector") if request.mode == "multi_vector" else self._fusion,
            outputs=tuple(leg for leg in legs if leg != "full_text"),
            reranker=reranker,
            limit=limit,
            candidates=max(limit, request.candidates or settings.candidates),
        )

    def _reranker(self, asked: bool | str | None) -> Reranker | None:
        name = self._settings.reranker if asked is None else asked
        if name is None or name is False:
            return None
        if name is True:
            name = self._settings.reranker or (next(iter(self._rerankers)) if len(self._rerankers) == 1 else None)
        if name is None:
            raise InvalidRequest(f"rerank is true, but must name one of {sorted(self._rerankers)}", field="rerank")
        if name not in self._rerankers:
            raise InvalidRequest(f"rerank is {name!r}; the rerankers of this service are {sorted(self._rerankers)}", field="rerank")
        return self._rerankers[name]


def _legs(mode: Mode, hybrid: Sequence[Leg]) -> tuple[Leg, ...]:
    """`hybrid`: the legs of that mode. Those of them that find are what multi_vector ranks."""
    if mode == "hybrid":
        return tuple(hybrid)
    return (*(leg for leg in hybrid if leg != mode), mode) if mode == "multi_vector" else (mode,)


def _query(text: str, embeddings: Embeddings, row: int) -> Query:
    dense, sparse, tokens = embeddings.dense, embeddings.sparse, embeddings.multi_vector
    return Query(
        text,
        None if dense is None else dense[row],
        None if sparse is None else sparse[row],
        None if tokens is None else tokens[row].astype(np.float32, copy=False),
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """A request with the service's defaults filled in."""

    legs: tuple[Leg, ...]
    fusion: Fusion
    outputs: tuple[Output, ...]
    reranker: Reranker | None
    limit: int
    """Fused hits that leave retrieval: those to be returned, or to be reranked."""
    candidates: int


@dataclass(slots=True)
class _Journal:
    """What each stage cost."""

    timings_ms: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    truncated: dict[str, bool] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        started = perf_counter()
        try:
            with tracing.stage(name):
                yield
        finally:  # what was waited for in vain took its time too
            self.timings_ms[name] = self.timings_ms.get(name, 0.0) + 1000 * (perf_counter() - started)

    def count(self, name: str, made: Embeddings | Scores) -> None:
        self.tokens[name] = self.tokens.get(name, 0) + sum(made.tokens)
        self.truncated[name] = self.truncated.get(name, False) or any(made.truncated)


def blend(hits: Sequence[Hit], rerank_scores: Sequence[float], rerank_weight: float) -> list[Hit]:
    """Hits ordered by rerank_weight x rerank score + (1 - rerank_weight) x fused score, the latter scaled to [0, 1] within these hits."""
    fused = [hit.score for hit in hits]
    low, span = min(fused), max(fused) - min(fused)
    blended = [
        replace(
            hit,
            score=rerank_weight * score + (1 - rerank_weight) * ((hit.score - low) / span if span else 1.0),
            scores={**hit.scores, "rerank": score},
        )
        for hit, score in zip(hits, rerank_scores, strict=True)
    ]
    return sorted(blended, key=lambda hit: (-hit.score, hit.id, hit.chunk))


def _cut(hits: Sequence[Hit], request: SearchRequest) -> list[Hit]:
    kept = hits if request.min_score is None else [hit for hit in hits if hit.score >= request.min_score]
    return list(kept[request.offset : request.offset + request.top_k])
