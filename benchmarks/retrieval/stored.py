"""A store of made-up chunks in a folder, and the owner of its collections over it, as a Retriever replica has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from benchmarks.retrieval.corpus import FINGERPRINT, Corpus
from bgeserve.fusion import Fusion
from bgeserve.retrieval import StoreRetriever
from bgeserve.store_settings import EmbeddedStoreSettings, MilvusLiteSettings, QdrantEdgeSettings
from bgeserve.types import Hit, Leg, Query

StoreName = Literal["qdrant_edge", "milvus_lite"]
COLLECTION = "docs"
CANDIDATES = 100
TOP_K = 10

_SETTINGS: dict[StoreName, type[QdrantEdgeSettings] | type[MilvusLiteSettings]] = {
    "qdrant_edge": QdrantEdgeSettings,
    "milvus_lite": MilvusLiteSettings,
}
STORES: tuple[StoreName, ...] = tuple(_SETTINGS)


def settings(store: StoreName, path: Path) -> EmbeddedStoreSettings:
    return _SETTINGS[store](path=path, create=True)


@asynccontextmanager
async def opened(store: StoreName, path: Path) -> AsyncIterator[StoreRetriever]:
    retriever = StoreRetriever(settings(store, path))
    try:
        yield retriever
    finally:
        await retriever.close()


async def fill(retriever: StoreRetriever, corpus: Corpus, on_progress: Callable[[int], object]) -> None:
    stored = 0
    for chunks, embeddings in corpus.pieces():
        ticket = await retriever.begin_write(COLLECTION, FINGERPRINT, {chunk.document_id: chunk.content_hash for chunk in chunks})
        await retriever.finish_write(COLLECTION, ticket, chunks, embeddings)
        stored += len(chunks)
        on_progress(stored)


async def search(retriever: StoreRetriever, query: Query, legs: Sequence[Leg]) -> list[Hit]:
    """As a search without a reranker does it: so many candidates of each leg, fused, and the chunks of the best."""
    (hits,) = await retriever.retrieve(
        COLLECTION, [query], fingerprint=FINGERPRINT, legs=legs, fusion=Fusion(), candidates=CANDIDATES, limit=TOP_K
    )
    return hits
