"""What the owner of the collections expects of a vector store: Qdrant Edge implements it, another engine may.

Knows chunks, vectors, legs and filters. Does not know the order of writes, fusion, or who calls from where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bgeserve.filters import Filter
from bgeserve.types import Chunk, Embeddings, FindingLeg, Query


@dataclass(frozen=True, slots=True)
class ScoredId:
    """A store's answer to one leg: the chunk's key in the store and that leg's own score, higher is better."""

    key: str
    score: float
    row: Any = field(default=None, compare=False, repr=False)
    """What the engine gave along: the store's own, which spares `fetch` from looking it up."""


@dataclass(frozen=True, slots=True)
class CollectionSchema:
    """What a collection is made of, fixed by its first write."""

    fingerprint: str
    dimensions: int | None
    has_sparse: bool
    language: str | None
    token_dimensions: int | None = None
    """Of each token vector. None: the collection has none."""
    quantization: str = "none"
    """How the engine shortens dense vectors for a first look at them: the store's own choice of those in `store_settings.py`."""


class VectorStore(Protocol):
    """Collections of chunks with their vectors. Synchronous, one caller at a time; `flush` makes what was written survive a power cut.

    Every write is validated whole before the engine sees any of it. All but `schema` and `create` raise NotFound when there is no such
    collection; whatever writes raises StorageFull.
    """

    def collections(self) -> list[str]: ...
    def schema(self, collection: str) -> CollectionSchema | None:
        """None when there is no such collection."""
        ...

    def create(self, collection: str, schema: CollectionSchema) -> None: ...
    def drop(self, collection: str) -> None:
        """Raises Conflict while an alias names it."""
        ...

    def aliases(self) -> Mapping[str, str]:
        """Which collection each alias names. The other methods take collections by their own names."""
        ...

    def set_alias(self, alias: str, collection: str) -> None:
        """Make an alias, or point one elsewhere in one step; durable on return. Raises Conflict when a collection has that name."""
        ...

    def remove_alias(self, alias: str) -> None:
        """Durable on return. Raises NotFound."""
        ...

    def ensure_writable(self) -> None:
        """Raises StorageFull when there is no room for a write."""
        ...

    def upsert(self, collection: str, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        """Replace documents whole: these chunks, all of each, become what is stored of them. `embeddings` are in the chunks' order.

        Raises InvalidRequest, FingerprintMismatch: then nothing has changed.
        """
        ...

    def delete(self, collection: str, document_ids: Sequence[str]) -> int:
        """Answers how many of the documents there were."""
        ...

    def matching(self, collection: str, filter: Filter) -> list[str]:
        """Ids of the documents that a filter selects."""
        ...

    def get(self, collection: str, document_ids: Sequence[str]) -> list[Chunk]:
        """In the order of the ids, each document's chunks in theirs."""
        ...

    def export(self, collection: str, document_ids: Sequence[str]) -> tuple[list[Chunk], Embeddings]:
        """What `get` answers, with all stored vectors of each chunk: token vectors as they were rounded to float16. `tokens` are 0."""
        ...

    def content_hashes(self, collection: str, document_ids: Sequence[str]) -> dict[str, str]:
        """Of the documents that are stored whole: the hash that all their chunks carry."""
        ...

    def scroll(self, collection: str, limit: int, after: str | None) -> tuple[list[str], str | None]:
        """A page of document ids in a stable order, and the cursor of the next page (None: that was the last)."""
        ...

    def search(self, collection: str, leg: FindingLeg, query: Query, limit: int, filter: Filter | None) -> list[ScoredId]:
        """Best first; equal scores in a stable order."""
        ...

    def rescore(self, collection: str, query: Query, keys: Sequence[str]) -> list[ScoredId]:
        """The multi_vector leg: MaxSim of the query's token vectors and those of these chunks, both rounded to float16, as a mean over the
        query's (`max_sim.py`). Best first, equal scores by key; a chunk that is not there any more is left out. Raises InvalidRequest."""
        ...

    def fetch(self, collection: str, hits: Sequence[ScoredId]) -> list[Chunk]:
        """The chunks that a search has just found, in that order."""
        ...

    def count(self, collection: str) -> int:
        """Documents, not chunks."""
        ...

    def copy(self, collection: str, name: str) -> str:
        """Make a store of its own of one collection, and answer its folder. Everything must have been flushed, and nothing may be written
        until this returns; searches may go on, in another thread.

        Raises Conflict (there is such a copy), StorageFull, InvalidRequest (a store that cannot).
        """
        ...

    def flush(self) -> None: ...
    def close(self) -> None: ...
