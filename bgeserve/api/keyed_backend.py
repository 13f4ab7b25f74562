"""The service as one key may use it: its models, its collections, its tokens per second. Every dialect goes through it.

An alias counts with its own name and with that of what it points to, so that nobody gets more by pointing an alias elsewhere; what is asked
for by an alias is then asked for by that name, so that what was checked is what is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bgeserve.api.keys import Key
from bgeserve.api.schema import total
from bgeserve.api.token_buckets import TokenBuckets
from bgeserve.backend import Backend
from bgeserve.errors import Forbidden
from bgeserve.filters import Filter
from bgeserve.model_load import ModelLoad
from bgeserve.protocols import Readiness, SearchRequest
from bgeserve.types import (
    CollectionInfo,
    Document,
    EmbeddedChunks,
    Embeddings,
    ModelInfo,
    ModelStatus,
    Role,
    Scores,
    SearchAnswer,
    WriteResult,
)


class KeyedBackend:
    """Implements `backend.Backend`. Raises Forbidden and RateLimited beside what the service raises."""

    def __init__(self, backend: Backend, key: Key, buckets: TokenBuckets) -> None:
        self._backend = backend
        self._key = key
        self._buckets = buckets

    # -- what computes -----------------------------------------------------------------------------------------------------------------

    async def encode(self, model: str | None, texts: Sequence[str], **asked: Any) -> Embeddings:
        name = self._model(model, "embedder")
        with self._buckets.spending(self._key, texts) as spent:
            made = await self._backend.encode(name, texts, **asked)
            spent.tokens = total(made.tokens)
        return made

    async def rerank(self, model: str | None, query: str, passages: Sequence[str], **asked: Any) -> Scores:
        name = self._model(model, "reranker")
        with self._buckets.spending(self._key, [query, *passages]) as spent:
            scores = await self._backend.rerank(name, query, passages, **asked)
            spent.tokens = total(scores.tokens)
        return scores

    async def search(self, request: SearchRequest) -> SearchAnswer:
        """Models that the service's settings choose come with the collection; one that the request names is checked."""
        if isinstance(request.rerank, str):
            self._key.check_model(request.rerank)
        collection = await self._collection(request.collection)
        with self._buckets.spending(self._key, request.queries) as spent:
            answer = await self._backend.search(replace(request, collection=collection))
            spent.tokens = total(answer.tokens)
        return answer

    async def put_documents(self, collection: str, documents: Sequence[Document], **asked: Any) -> WriteResult:
        collection = await self._collection(collection)
        with self._buckets.spending(self._key, [document.text for document in documents]) as spent:
            written = await self._backend.put_documents(collection, documents, **asked)
            spent.tokens = int(written.tokens)
        return written

    # -- documents ---------------------------------------------------------------------------------------------------------------------

    async def get_documents(self, collection: str, ids: Sequence[str]) -> list[Document]:
        return await self._backend.get_documents(await self._collection(collection), ids)

    async def scroll_documents(self, collection: str, *, limit: int, after: str | None) -> tuple[list[Document], str | None]:
        return await self._backend.scroll_documents(await self._collection(collection), limit=limit, after=after)

    async def delete_documents(self, collection: str, ids: Sequence[str] | None, filter: Filter | None = None) -> int:
        return await self._backend.delete_documents(await self._collection(collection), ids, filter)

    async def export_chunks(self, collection: str, *, limit: int, after: str | None) -> tuple[EmbeddedChunks, str | None]:
        return await self._backend.export_chunks(await self._collection(collection), limit=limit, after=after)

    async def import_chunks(self, collection: str, documents: EmbeddedChunks) -> WriteResult:
        return await self._backend.import_chunks(await self._collection(collection), documents)

    # -- collections and their names ---------------------------------------------------------------------------------------------------

    async def collections(self) -> list[CollectionInfo]:
        return [self._visible(info) for info in await self._backend.collections() if self._key.may_use_collection(info.name)]

    async def aliases(self) -> Mapping[str, str]:
        allowed = self._key.may_use_collection
        return {alias: target for alias, target in (await self._backend.aliases()).items() if allowed(alias) and allowed(target)}

    async def set_alias(self, alias: str, collection: str) -> str | None:
        for name in (alias, collection):
            await self._collection(name)
        return await self._backend.set_alias(alias, collection)

    async def remove_alias(self, alias: str) -> str:
        await self._collection(alias)
        return await self._backend.remove_alias(alias)

    async def create_collection(self, collection: str, embedder: str | None = None) -> CollectionInfo:
        if embedder is not None:
            self._key.check_model(embedder)
        await self._collection(collection)
        return self._visible(await self._backend.create_collection(collection, embedder))

    async def describe_collection(self, collection: str) -> CollectionInfo:
        return self._visible(await self._backend.describe_collection(await self._collection(collection)))

    async def copy_collection(self, collection: str, name: str) -> str:
        return await self._backend.copy_collection(await self._collection(collection), name)

    async def delete_collection(self, collection: str) -> int:
        return await self._backend.delete_collection(await self._collection(collection))

    # -- models ------------------------------------------------------------------------------------------------------------------------

    def default_model(self, role: Role) -> str:
        return self._key.check_model(self._backend.default_model(role))

    async def models(self) -> list[ModelInfo]:
        return [info for info in await self._backend.models() if self._key.may_use_model(info.name)]

    async def model_info(self, name: str) -> ModelInfo:
        return await self._backend.model_info(self._key.check_model(name))

    async def model_statuses(self) -> list[ModelStatus]:
        return [status for status in await self._backend.model_statuses() if self._key.may_use_model(status.name)]

    async def model_loads(self) -> list[ModelLoad]:
        return [load for load in await self._backend.model_loads() if self._key.may_use_model(load.name)]

    async def readiness(self) -> Readiness:
        return await self._backend.readiness()

    # -- checks ------------------------------------------------------------------------------------------------------------------------

    def _model(self, name: str | None, role: Role) -> str:
        return self.default_model(role) if name is None else self._key.check_model(name)

    async def _collection(self, name: str) -> str:
        """The collection behind the name. Raises Forbidden."""
        self._key.check_collection(name)
        if self._key.collections is None:
            return name
        target = (await self._backend.aliases()).get(name, name)
        if not self._key.may_use_collection(target):
            # Its name is not this key's to know.
            raise Forbidden(f"collection {name!r} points to one that the key {self._key.id} is not for", field="collection")
        return target

    def _visible(self, info: CollectionInfo) -> CollectionInfo:
        return replace(info, aliases=[alias for alias in info.aliases if self._key.may_use_collection(alias)])
