"""What the pieces expect of each other. The pipelines are written against these; replicas and handles implement them.

Each may be a hop away (a deployment handle), so all are async. What the API expects of them together is in `backend.py`, what the
collections' owner expects of a store in `vector_store.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from bgeserve.caller import ANYONE, Caller
from bgeserve.chunking import Span
from bgeserve.filters import Filter
from bgeserve.fusion import Fusion
from bgeserve.model_load import ModelLoad
from bgeserve.travels import travels
from bgeserve.types import (
    Chunk,
    Chunking,
    CollectionInfo,
    EmbeddedChunks,
    EmbedderOptions,
    Embeddings,
    Hit,
    InputType,
    Leg,
    Mode,
    ModelInfo,
    Output,
    Query,
    RerankerOptions,
    Scores,
)


class Embedder(Protocol):
    async def info(self) -> ModelInfo: ...
    async def current_load(self) -> ModelLoad:
        """Of every replica that runs; wakes none."""
        ...

    async def encode(
        self,
        texts: Sequence[str],
        *,
        outputs: Sequence[Output] = ("dense",),
        input_type: InputType = "document",
        options: EmbedderOptions | None = None,
        truncate: bool = True,
        caller: Caller = ANYONE,
    ) -> Embeddings:
        """Vectors of each text, in order.

        Raises InvalidRequest (an output that the model lacks; an option that it does not take; a text over the limit with
        truncate=False), ReplicaFull, DeadlineExceeded, ComputeError.
        """
        ...

    async def chunk(self, texts: Sequence[str], chunking: Chunking) -> list[list[Span]]:
        """Where each document is cut for this model: characters [start, end) of each chunk, in order.

        Raises InvalidRequest (chunks of more tokens than the model takes; a lone surrogate).
        """
        ...


class Reranker(Protocol):
    async def info(self) -> ModelInfo: ...
    async def current_load(self) -> ModelLoad:
        """Of every replica that runs; wakes none."""
        ...

    async def rerank(
        self,
        query: str,
        passages: Sequence[str],
        *,
        options: RerankerOptions | None = None,
        truncate: bool = True,
        caller: Caller = ANYONE,
    ) -> Scores:
        """Score of each passage for the query, in the passages' order. Raises as `Embedder.encode`."""
        ...


@travels
class WriteTicket:
    """A write's place in the order in which the owner accepted it, given before anything is embedded."""

    sequence: int
    unchanged: frozenset[str]
    """Document ids that are stored already with the same content hash under the same fingerprint."""
    collection: str = ""
    """Where it was accepted: it is finished there, whatever an alias names by then."""
    begins_collection: bool = False
    """There is no such collection yet: this write makes it."""


class Retriever(Protocol):
    """The owner of the collections. A collection comes into being with its first write, if it has not been made before.

    Whatever takes a collection takes an alias; each call is wholly about the collection that the alias names when it begins.
    """

    async def retrieve(
        self,
        collection: str,
        queries: Sequence[Query],
        *,
        fingerprint: str | None,
        legs: Sequence[Leg],
        fusion: Fusion,
        candidates: int,
        limit: int,
        filter: Filter | None = None,
    ) -> list[list[Hit]]:
        """Search each leg for `candidates`, fuse, and return the best `limit` hits of each query.

        Raises NotFound (no such collection), FingerprintMismatch (query vectors of another model).
        """
        ...

    async def begin_write(self, collection: str, fingerprint: str, content_hashes: Mapping[str, str]) -> WriteTicket:
        """Accept a write of these document ids: of two writes to one id, the one that began later wins.

        Raises FingerprintMismatch, StorageFull.
        """
        ...

    async def finish_write(self, collection: str, ticket: WriteTicket, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        """Store the changed chunks of an accepted write; durable on return.

        Raises StaleWrite (the owner has restarted since, or the ticket is too old: begin again), FingerprintMismatch, StorageFull,
        InvalidRequest.
        """
        ...

    async def abandon_write(self, collection: str, ticket: WriteTicket) -> None:
        """End an accepted write that will not be finished (its texts could not be embedded): nothing of it is stored."""
        ...

    async def delete(self, collection: str, ids: Sequence[str] | None, filter: Filter | None = None) -> int:
        """Delete documents by id, or by filter; durable on return. Answers how many there were. Raises NotFound (no such collection)."""
        ...

    async def get(self, collection: str, ids: Sequence[str]) -> list[Chunk]:
        """The stored chunks of these documents; ids that are not there are left out. Raises NotFound (no such collection)."""
        ...

    async def scroll(self, collection: str, *, limit: int, after: str | None = None) -> tuple[list[Chunk], str | None]:
        """All chunks of a page of `limit` documents, in a stable order, and the cursor of the next page (None: that was the last)."""
        ...

    async def export(self, collection: str, *, limit: int, after: str | None = None) -> tuple[EmbeddedChunks, str | None]:
        """As `scroll`, with the vectors; a page has at most `limit` documents, and may have fewer. Raises NotFound (nothing is there)."""
        ...

    async def describe(self, collection: str) -> CollectionInfo:
        """Raises NotFound."""
        ...

    async def create(self, collection: str, like: Embeddings) -> None:
        """Make an empty collection for vectors like these; durable on return. One that is there for the same model stays as it is.

        Raises Conflict (it holds another model's vectors; it is an alias), StorageFull.
        """
        ...

    async def copy(self, collection: str, name: str) -> str:
        """Make a store of its own of an embedded collection, in `copies/NAME` of its store's folder, as it is between two writes: writes
        wait meanwhile, searches do not. Answers the folder, on the owner's machine.

        Raises NotFound, Conflict (there is such a copy), StorageFull, InvalidRequest (a store that cannot).
        """
        ...

    async def drop(self, collection: str) -> int:
        """Delete a collection whole; durable on return. Answers how many documents there were. Raises NotFound; Conflict while an alias
        names it.

        Writes that were accepted before store nothing of theirs any more; the next one makes the collection anew, of any model.
        """
        ...

    async def collections(self) -> list[CollectionInfo]: ...

    async def aliases(self) -> Mapping[str, str]:
        """Which collection each alias names."""
        ...

    async def set_alias(self, alias: str, collection: str) -> str | None:
        """Make an alias, or point it elsewhere in one step; durable on return. Answers which collection it named before.

        Raises NotFound (no such collection), Conflict (the alias is a collection's name), StorageFull.
        """
        ...

    async def remove_alias(self, alias: str) -> str:
        """Durable on return. Answers which collection it named; that stays. Raises NotFound."""
        ...


@travels
class SearchRequest:
    """One search. None means: as the service's settings say."""

    queries: Sequence[str]
    collection: str = "default"
    mode: Mode = "hybrid"
    top_k: int = 10
    offset: int = 0
    candidates: int | None = None
    rerank: bool | str | None = None
    """True: the settings' reranker (or the only one); a name: that one; False: none; None: as the settings say."""
    rerank_top: int | None = None
    min_score: float | None = None
    filter: Filter | None = None
    truncate: bool = True
    caller: Caller = ANYONE
    instruction: str | None = None
    """Put before each query for the embedder, in place of the model's own."""


@travels
class Readiness:
    """Whether every deployment is healthy, or deliberately at zero replicas; `waiting_for` names those that are not."""

    ready: bool
    waiting_for: Sequence[str] = ()
