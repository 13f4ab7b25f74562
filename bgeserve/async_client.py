"""The Python client, to be awaited. What each method does, the one of the same name in `client` says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

import httpx

from bgeserve import wire, wire_collections
from bgeserve.attempts import Outcome, Policy, Send, Steps, attempts, polls, polls_model
from bgeserve.client import base_url, headers
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


class AsyncClient:
    """`Client`, to be awaited: the same arguments, answers and errors."""

    def __init__(self, url: str | None = None, *, api_key: str | None = None, timeout_s: float = 30, retry: bool = True) -> None:
        self._policy = Policy(timeout_s, retry)
        self._http = httpx.AsyncClient(base_url=base_url(url), headers=headers(api_key))

    async def encode(self, texts: str | Sequence[str], **options: Unpack[wire.EncodeOptions]) -> Embeddings:
        return await self._call(wire.encode(texts, options))

    async def embed(self, texts: str | Sequence[str], **options: Unpack[wire.EmbedOptions]) -> Float32Array:
        return await self._call(wire.embed(texts, options))

    async def rerank(self, query: str, passages: Sequence[str], **options: Unpack[wire.RerankOptions]) -> Scores:
        return await self._call(wire.rerank(query, passages, options))

    async def search(self, query: str, **options: Unpack[wire.SearchOptions]) -> list[Hit]:
        return await self._call(wire.search(query, options))

    async def search_many(self, queries: Sequence[str], **options: Unpack[wire.SearchOptions]) -> SearchAnswer:
        return await self._call(wire.search_many(queries, options))

    async def put_documents(
        self,
        documents: Iterable[Document],
        *,
        collection: str = "default",
        on_progress: Callable[[int], object] | None = None,
        **options: Unpack[wire.ComputeOptions],
    ) -> WriteResult:
        written = WriteResult(0, 0, 0)
        for batch in wire.split_documents(documents):
            written = add_written(written, await self._call(wire.put_documents(collection, batch, options)))
            if on_progress is not None:
                on_progress(written.upserted + written.unchanged)
        return written

    async def get_documents(
        self, ids: Sequence[str], *, collection: str = "default", **options: Unpack[wire.CallOptions]
    ) -> list[Document]:
        return await self._call(wire.get_documents(collection, ids, options))

    async def documents(
        self, *, collection: str = "default", page: int = 100, **options: Unpack[wire.CallOptions]
    ) -> AsyncIterator[Document]:
        after: str | None = None
        while True:
            found, after = await self._call(wire.page_of_documents(collection, page, after, options))
            for document in found:
                yield document
            if after is None:
                return

    async def delete_documents(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: Mapping[str, Any] | None = None,
        collection: str = "default",
        **options: Unpack[wire.CallOptions],
    ) -> int:
        return await self._call(wire.delete_documents(collection, ids, filter, options))

    async def collection(self, name: str = "default") -> CollectionInfo:
        return await self._call(wire_collections.collection(name))

    async def collections(self) -> list[CollectionInfo]:
        return await self._call(wire_collections.collections())

    async def create_collection(self, name: str, *, embedder: str | None = None) -> CollectionInfo:
        return await self._call(wire_collections.create_collection(name, embedder))

    async def delete_collection(self, name: str) -> int:
        return await self._call(wire_collections.delete_collection(name))

    async def copy_collection(self, name: str, copy: str) -> str:
        return await self._call(wire_collections.copy_collection(name, copy))

    async def aliases(self) -> dict[str, str]:
        return await self._call(wire_collections.aliases())

    async def set_alias(self, alias: str, collection: str) -> str | None:
        return await self._call(wire_collections.set_alias(alias, collection))

    async def remove_alias(self, alias: str) -> str:
        return await self._call(wire_collections.remove_alias(alias))

    async def export_chunks(self, collection: str = "default") -> AsyncIterator[EmbeddedChunks]:
        after: str | None = None
        documents = wire_collections.FIRST_PAGE_DOCUMENTS
        while True:
            page, after = await self._call(wire_collections.export_chunks(collection, documents, after))
            yield page
            if after is None:
                return
            documents = wire_collections.next_page_documents(documents, page)

    async def import_chunks(self, documents: Iterable[EmbeddedChunks], *, collection: str = "default") -> WriteResult:
        written = WriteResult(0, 0, 0)
        for batch in wire_collections.split_chunks(documents):
            written = add_written(written, await self._call(wire_collections.import_chunks(collection, batch)))
        return written

    async def models(self) -> list[ModelInfo]:
        return await self._call(wire.models())

    async def statuses(self) -> list[ModelStatus]:
        return await self._call(wire.statuses())

    async def loads(self) -> list[ModelLoad]:
        return await self._call(wire.loads())

    async def ready(self) -> Readiness:
        return await self._call(wire.ready())

    async def wait_until_ready(self, timeout_s: float = 60) -> None:
        await self._run(polls(timeout_s))

    async def wait_for_model(self, name: str, timeout_s: float = 60) -> ModelStatus:
        return await self._run(polls_model(name, timeout_s))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, request: wire.Request[T]) -> T:
        return await self._run(attempts(request, self._policy))

    async def _run(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        try:
            while True:
                step = steps.send(outcome)
                outcome = await self._send(step) if isinstance(step, Send) else await asyncio.sleep(step)
        except StopIteration as end:
            return end.value

    async def _send(self, step: Send) -> Outcome:
        try:
            return await self._http.request(**step.arguments())
        except httpx.TransportError as error:
            return error
