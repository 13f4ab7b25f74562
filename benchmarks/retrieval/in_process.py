"""What the Retriever adds to each embedded store: its searches beside those of the store's own client, query by query in turns."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.retrieval.bare_clients import on_a_copy
from benchmarks.retrieval.corpus import Corpus
from benchmarks.retrieval.stored import CANDIDATES, StoreName, fill, opened, search
from benchmarks.serving.report import Section
from bgeserve.cli.progress import Bars
from bgeserve.types import Leg

DIMENSIONS = 1024
HYBRID: tuple[Leg, ...] = ("dense", "sparse")
WARM_UP = 20
ADDED_GOAL_MS = 2.0
EDGE_GOALS_MS = {20_000: 10.0, 100_000: 30.0}
RESCORE_DIMENSIONS, RESCORE_TOKENS, RESCORE_DOCUMENTS = 384, 64, 5_000
RESCORE_GOAL_MS = 15.0

COLUMNS = ("store", "documents", "dense + sparse p50 ms", "goal", "its own client", "added", "goal", "dense", "sparse", "full_text")


def hybrid(stores: Sequence[StoreName], sizes: Sequence[int], queries: int, bars: Bars) -> Section:
    rows = [asyncio.run(_hybrid_row(store, size, queries, bars)) for size in sizes for store in stores]
    notes = [
        f"{DIMENSIONS} dimensions in clusters, {CANDIDATES} candidates a leg, one caller, warm; p50 of {queries} queries, each searched by "
        "ours and by the store's own client (the two legs and nothing else, on a copy of the files) in turns; added: p50 of the differences"
    ]
    return Section("Hybrid search of the embedded stores, in process", COLUMNS, rows, notes)


async def _hybrid_row(store: StoreName, size: int, count: int, bars: Bars) -> list[str]:
    corpus = Corpus(size, DIMENSIONS, HYBRID)
    queries = corpus.queries(WARM_UP + count)
    with tempfile.TemporaryDirectory(prefix="retrieval-benchmark-") as folder:
        path = Path(folder) / "store"
        async with opened(store, path) as retriever:
            await fill(retriever, corpus, bars.add(f"{store}: writing", size, "chunks"))
        bare = on_a_copy(store, path)
        async with opened(store, path) as retriever:
            ours_ms: list[float] = []
            bare_ms: list[float] = []
            for query in queries:
                ours_ms.append(await _timed_ms(lambda query=query: search(retriever, query, HYBRID)))
                started = perf_counter()
                bare(query, HYBRID)
                bare_ms.append(1000 * (perf_counter() - started))
            legs: tuple[Leg, ...] = ("dense", "sparse", "full_text")
            alone_ms = {
                leg: [await _timed_ms(lambda query=query, leg=leg: search(retriever, query, [leg])) for query in queries] for leg in legs
            }
    added = [ours - theirs for ours, theirs in zip(ours_ms, bare_ms, strict=True)]
    goal_ms = EDGE_GOALS_MS.get(size) if store == "qdrant_edge" else None
    return [
        store,
        f"{size:,}",
        _p50(ours_ms),
        "-" if goal_ms is None else f"{goal_ms:g}",
        _p50(bare_ms),
        _p50(added),
        f"{ADDED_GOAL_MS:g}",
        *(_p50(alone_ms[leg]) for leg in legs),
    ]


def rescoring(stores: Sequence[StoreName], queries: int, bars: Bars) -> Section:
    rows = [asyncio.run(_rescoring_row(store, queries, bars)) for store in stores]
    notes = [
        f"{RESCORE_DOCUMENTS:,} chunks of {RESCORE_TOKENS} token vectors in {RESCORE_DIMENSIONS} dimensions; p50 of {queries} queries, "
        "each searched without and with multi_vector in turns; rescoring: p50 of the differences"
    ]
    return Section(
        f"Multi-vector re-scoring of {CANDIDATES} candidates",
        ("store", "dense p50 ms", "dense + multi_vector p50 ms", "rescoring", "goal"),
        rows,
        notes,
    )


async def _rescoring_row(store: StoreName, count: int, bars: Bars) -> list[str]:
    corpus = Corpus(RESCORE_DOCUMENTS, RESCORE_DIMENSIONS, ("dense", "multi_vector"), RESCORE_TOKENS)
    with tempfile.TemporaryDirectory(prefix="retrieval-benchmark-") as folder:
        async with opened(store, Path(folder) / "store") as retriever:
            await fill(retriever, corpus, bars.add(f"{store}: writing", corpus.documents, "chunks"))
            without: list[float] = []
            with_tokens: list[float] = []
            for query in corpus.queries(WARM_UP + count):
                without.append(await _timed_ms(lambda query=query: search(retriever, query, ["dense"])))
                with_tokens.append(await _timed_ms(lambda query=query: search(retriever, query, ["dense", "multi_vector"])))
    added = [more - less for more, less in zip(with_tokens, without, strict=True)]
    return [store, _p50(without), _p50(with_tokens), _p50(added), f"{RESCORE_GOAL_MS:g}"]


async def _timed_ms(call: Callable[[], Awaitable[object]]) -> float:
    started = perf_counter()
    await call()
    return 1000 * (perf_counter() - started)


def _p50(ms: Sequence[float]) -> str:
    return f"{median(ms[WARM_UP:]):.1f}"
