"""The Python client: `Client("http://127.0.0.1:8000").search("how do I parse command line arguments")`; to be awaited: `async_client`.

What is asked and answered is in `wire`, when something is sent again in `attempts`; the two clients only send and sleep, each in its way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

import httpx

from bgeserve import wire, wire_collections
from bgeserve.attempts import Outcome, Policy, Send, Steps, attempts, polls, polls_model
from bgeserve.errors import InvalidRequest
from bgeserve.model_load import ModelLoad
from bgeserve.protocols import Readiness
from bgeserve.splitting import add_written
from bgeserve.types import (
    CollectionInfo,
    Document,
    EmbeddedChunks,
    Embeddings,
    Float32Array,
    Hit,
    ModelInfo,
    ModelStatus,
    Scores,
    SearchAnswer,
    WriteResult,
)

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"


class Client:
    """Raises the errors of `bgeserve.errors`: what the service refused, `Unavailable` when it cannot be reached, `DeadlineExceeded`.

    url: default BGE_SERVE_URL, else http://127.0.0.1:8000. api_key: default BGE_SERVE_API_KEY. timeout_s: of a call, retries included.
    retry: whether calls that were refused for now (429, 503) or not received are sent again within that time.
    """

    def __init__(self, url: str | None = None, *, api_key: str | None = None, timeout_s: float = 30, retry: bool = True) -> None:
        self._policy = Policy(timeout_s, retry)
        self._http = httpx.Client(base_url=base_url(url), headers=headers(api_key))

    def encode(self, texts: str | Sequence[str], **options: Unpack[wire.EncodeOptions]) -> Embeddings:
        """Any of the dense, sparse and multi-vector outputs of each text, in order."""
        return self._call(wire.encode(texts, options))

    def embed(self, texts: str | Sequence[str], **options: Unpack[wire.EmbedOptions]) -> Float32Array:
        """Dense vectors: float32 [n, dimensions], L2-normalised."""
        return self._call(wire.embed(texts, options))

    def rerank(self, query: str, passages: Sequence[str], **options: Unpack[wire.RerankOptions]) -> Scores:
        """Scores of each passage, in the passages' order."""
        return self._call(wire.rerank(query, passages, options))

    def search(self, query: str, **options: Unpack[wire.SearchOptions]) -> list[Hit]:
        """Hits, best first. Those of a degraded answer (`search.rerank_within_s`) have no "rerank" among their scores."""
        return self._call(wire.search(query, options))

    def search_many(self, queries: Sequence[str], **options: Unpack[wire.SearchOptions]) -> SearchAnswer:
        """One list of hits per query, with each stage's time and tokens, and the stages that were left out (`degraded`)."""
        return self._call(wire.search_many(queries, options))

    def put_documents(
        self,
        documents: Iterable[Document],
        *,
        collection: str = "default",
        on_progress: Callable[[int], object] | None = None,
        **options: Unpack[wire.ComputeOptions],
    ) -> WriteResult:
        """Store any number of documents, in requests of bounded size; `on_progress` hears how many are stored so far.

        timeout_s counts for each request. When one fails, those before it are stored; putting all of them again embeds only the rest.
        """
        written = WriteResult(0, 0, 0)
        for batch in wire.split_documents(documents):
            written = add_written(written, self._call(wire.put_documents(collection, batch, options)))
            if on_progress is not None:
                on_progress(written.upserted + written.unchanged)
        return written

    def get_documents(self, ids: Sequence[str], *, collection: str = "default", **options: Unpack[wire.CallOptions]) -> list[Document]:
        """The documents of these ids; those that are not there are left out."""
        return self._call(wire.get_documents(collection, ids, options))

    def documents(self, *, collection: str = "default", page: int = 100, **options: Unpack[wire.CallOptions]) -> Iterator[Document]:
        """All documents, in a stable order."""
        after: str | None = None
        while True:
            found, after = self._call(wire.page_of_documents(collection, page, after, options))
            yield from found
            if after is None:
                return

    def delete_documents(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: Mapping[str, Any] | None = None,
        collection: str = "default",
        **options: Unpack[wire.CallOptions],
    ) -> int:
        """By ids or by filter; answers how many there were."""
        return self._call(wire.delete_documents(collection, ids, filter, options))

    def collection(self, name: str = "default") -> CollectionInfo:
        """By its name or an alias."""
        return self._call(wire_collections.collection(name))

    def collections(self) -> list[CollectionInfo]:
        return self._call(wire_collections.collections())

    def create_collection(self, name: str, *, embedder: str | None = None) -> CollectionInfo:
        """Empty, for one of the service's embedders; None: the one that makes the others. One that is there for the same stays as it is.

        Raises Conflict when it is there for another.
        """
        return self._call(wire_collections.create_collection(name, embedder))

    def delete_collection(self, name: str) -> int:
        """With all its documents; answers how many there were. Raises NotFound; Conflict while an alias names it."""
        return self._call(wire_collections.delete_collection(name))

    def copy_collection(self, name: str, copy: str) -> str:
        """Make a store of its own of an embedded collection while it serves; answers its folder on the machine of its owner.

        Raises Conflict when there is a copy of that name.
        """
        return self._call(wire_collections.copy_collection(name, copy))

    def aliases(self) -> dict[str, str]:
        """Which collection each alias names."""
        return self._call(wire_collections.aliases())

    def set_alias(self, alias: str, collection: str) -> str | None:
        """Make an alias, or point it elsewhere in one step: from then on whatever takes a collection's name takes it. Answers what it
        named before. Raises NotFound, Conflict."""
        return self._call(wire_collections.set_alias(alias, collection))

    def remove_alias(self, alias: str) -> str:
        """Its collection, which is answered, stays."""
        return self._call(wire_collections.remove_alias(alias))

    def export_chunks(self, collection: str = "default") -> Iterator[EmbeddedChunks]:
        """All documents as they are stored, with their vectors, in pages of bounded size."""
        after: str | None = None
        documents = wire_collections.FIRST_PAGE_DOCUMENTS
        while True:
            page, after = self._call(wire_collections.export_chunks(collection, documents, after))
            yield page
            if after is None:
                return
            documents = wire_collections.next_page_documents(documents, page)

    def import_chunks(self, documents: Iterable[EmbeddedChunks], *, collection: str = "default") -> WriteResult:
        """Store documents with their vectors, in requests of bounded size; each document's chunks must stand together.

        Raises FingerprintMismatch when no embedder of the service made them.
        """
        written = WriteResult(0, 0, 0)
        for batch in wire_collections.split_chunks(documents):
            written = add_written(written, self._call(wire_collections.import_chunks(collection, batch)))
        return written

    def models(self) -> list[ModelInfo]:
        return self._call(wire.models())

    def statuses(self) -> list[ModelStatus]:
        """Which models can answer, and their replicas by state; asks and wakes none of them."""
        return self._call(wire.statuses())

    def loads(self) -> list[ModelLoad]:
        """What each model's running replicas have to do now; wakes none."""
        return self._call(wire.loads())

    def ready(self) -> Readiness:
        return self._call(wire.ready())

    def wait_until_ready(self, timeout_s: float = 60) -> None:
        """Raises Unavailable, saying what is still waited for."""
        self._run(polls(timeout_s))

    def wait_for_model(self, name: str, timeout_s: float = 60) -> ModelStatus:
        """Until a replica of it runs, or none does on purpose. Raises UnknownModel at once, Unavailable saying what it still waits for."""
        return self._run(polls_model(name, timeout_s))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, request: wire.Request[T]) -> T:
        return self._run(attempts(request, self._policy))

    def _run(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        try:
            while True:
                step = steps.send(outcome)
                outcome = self._send(step) if isinstance(step, Send) else time.sleep(step)
        except StopIteration as end:
            return end.value

    def _send(self, step: Send) -> Outcome:
        try:
            return self._http.request(**step.arguments())
        except httpx.TransportError as error:
            return error


def base_url(url: str | None) -> str:
    chosen = url or os.environ.get("BGE_SERVE_URL") or DEFAULT_URL
    if not chosen.startswith(("http://", "https://")):
        raise InvalidRequest(f"the service's URL must start with http:// or https://, not {chosen!r}", field="url")
    return chosen


def headers(api_key: str | None) -> dict[str, str]:
    key = api_key or os.environ.get("BGE_SERVE_API_KEY")
    return {"authorization": f"Bearer {key}"} if key else {}
