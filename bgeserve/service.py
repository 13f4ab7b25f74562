"""The service behind the API: which model a request means, and which pipeline serves it.

The same object serves inside the ingress (its pieces are deployment handles) and in one process (its pieces are engines): it cannot tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from bgeserve.caller import A_JOB, ANYONE, Caller
from bgeserve.errors import InvalidRequest, NotFound, UnknownModel, WrongRole
from bgeserve.filters import Filter
from bgeserve.index_embedders import IndexEmbedders
from bgeserve.indexing import IndexPipeline, documents_of
from bgeserve.model_load import ModelLoad
from bgeserve.observe import Observer
from bgeserve.protocols import Embedder, Readiness, Reranker, Retriever, SearchRequest
from bgeserve.search import SearchPipeline
from bgeserve.settings import SearchSettings
from bgeserve.types import (
    OUTPUTS,
    Chunking,
    CollectionInfo,
    Document,
    EmbeddedChunks,
    EmbedderOptions,
    Embeddings,
    InputType,
    ModelInfo,
    ModelStatus,
    Output,
    RerankerOptions,
    Role,
    Scores,
    SearchAnswer,
    WriteResult,
)

T = TypeVar("T")

PROTOCOLS: Mapping[Role, str] = {"embedder": "retriever", "reranker": "reranker"}
"""What BAAI's model servers call the two roles."""


class SearchService:
    """What a service with an index adds: the pipelines over its embedders and one owner of collections."""

    def __init__(
        self,
        embedder: Embedder,
        retriever: Retriever,
        rerankers: Mapping[str, Reranker],
        settings: SearchSettings,
        others: Sequence[Embedder] = (),
        observer: Observer | None = None,
    ) -> None:
        """embedder: makes the collections for which nobody chooses one of the others."""
        outputs: list[Output] = [output for output in OUTPUTS if output == "dense" or output in settings.legs]
        self.retriever = retriever
        embedders = IndexEmbedders(embedder, retriever, others)
        self.search = SearchPipeline(embedders, retriever, rerankers, settings, observer)
        chunking = None if settings.chunking is None else Chunking(settings.chunking.max_tokens, settings.chunking.overlap_tokens)
        self.index = IndexPipeline(embedders, retriever, outputs, chunking)


class Service:
    """Implements `backend.Backend`; `searching` is None where only embedders or rerankers are deployed."""

    def __init__(
        self,
        embedders: Mapping[str, Embedder],
        rerankers: Mapping[str, Reranker],
        searching: SearchService | None,
        readiness: Callable[[], Awaitable[Readiness]],
    ) -> None:
        self._embedders = embedders
        self._rerankers = rerankers
        self._searching = searching
        self._readiness = readiness

    async def encode(
        self,
        model: str | None,
        texts: Sequence[str],
        *,
        outputs: Sequence[Output] = ("dense",),
        input_type: InputType = "document",
        options: EmbedderOptions | None = None,
        truncate: bool = True,
        caller: Caller = ANYONE,
    ) -> Embeddings:
        embedder = _choose(model, self._embedders, self._rerankers, wanted="embedder", other="reranker")
        return await embedder.encode(texts, outputs=outputs, input_type=input_type, options=options, truncate=truncate, caller=caller)

    async def rerank(
        self,
        model: str | None,
        query: str,
        passages: Sequence[str],
        *,
        options: RerankerOptions | None = None,
        truncate: bool = True,
        caller: Caller = ANYONE,
    ) -> Scores:
        reranker = _choose(model, self._rerankers, self._embedders, wanted="reranker", other="embedder")
        return await reranker.rerank(query, passages, options=options, truncate=truncate, caller=caller)

    async def search(self, request: SearchRequest) -> SearchAnswer:
        return await self._search_service().search.search(request)

    async def put_documents(
        self,
        collection: str,
        documents: Sequence[Document],
        *,
        truncate: bool = True,
        caller: Caller = A_JOB,
    ) -> WriteResult:
        index = self._search_service().index
        return await index.put(collection, documents, truncate=truncate, caller=caller)

    async def get_documents(self, collection: str, ids: Sequence[str]) -> list[Document]:
        return documents_of(await self._search_service().retriever.get(collection, ids))

    async def scroll_documents(self, collection: str, *, limit: int, after: str | None) -> tuple[list[Document], str | None]:
        chunks, following = await self._search_service().retriever.scroll(collection, limit=limit, after=after)
        return documents_of(chunks), following

    async def delete_documents(self, collection: str, ids: Sequence[str] | None, filter: Filter | None = None) -> int:
        return await self._search_service().retriever.delete(collection, ids, filter)

    async def export_chunks(self, collection: str, *, limit: int, after: str | None) -> tuple[EmbeddedChunks, str | None]:
        return await self._search_service().retriever.export(collection, limit=limit, after=after)

    async def import_chunks(self, collection: str, documents: EmbeddedChunks) -> WriteResult:
        return await self._search_service().index.put_embedded(collection, documents)

    async def collections(self) -> list[CollectionInfo]:
        return await self._search_service().retriever.collections()

    async def aliases(self) -> Mapping[str, str]:
        return await self._search_service().retriever.aliases()

    async def set_alias(self, alias: str, collection: str) -> str | None:
        return await self._search_service().retriever.set_alias(alias, collection)

    async def remove_alias(self, alias: str) -> str:
        return await self._search_service().retriever.remove_alias(alias)

    async def create_collection(self, collection: str, embedder: str | None = None) -> CollectionInfo:
        searching = self._search_service()
        chosen = None if embedder is None else _choose(embedder, self._embedders, self._rerankers, wanted="embedder", other="reranker")
        await searching.index.make(collection, chosen)
        return await searching.retriever.describe(collection)

    async def describe_collection(self, collection: str) -> CollectionInfo:
        return await self._search_service().retriever.describe(collection)

    async def copy_collection(self, collection: str, name: str) -> str:
        return await self._search_service().retriever.copy(collection, name)

    async def delete_collection(self, collection: str) -> int:
        return await self._search_service().retriever.drop(collection)

    def default_model(self, role: Role) -> str:
        return _only(self._embedders if role == "embedder" else self._rerankers, role)

    async def models(self) -> list[ModelInfo]:
        return await asyncio.gather(*(self.model_info(name) for name in (*self._embedders, *self._rerankers)))

    async def model_info(self, name: str) -> ModelInfo:
        model = self._embedders.get(name) or self._rerankers.get(name)
        if model is None:
            raise UnknownModel(f"model {name!r} is not served here; the models are {self._names()}", field="model")
        return await model.info()

    async def model_statuses(self) -> list[ModelStatus]:
        return [
            ModelStatus(info.name, info.role, info.model, available=True, replicas={"RUNNING": 1}, protocol=PROTOCOLS[info.role])
            for info in await self.models()
        ]

    async def model_loads(self) -> list[ModelLoad]:
        models = {**self._embedders, **self._rerankers}
        loads = await asyncio.gather(*(model.current_load() for model in models.values()))
        return [replace(load, name=name) for name, load in zip(models, loads, strict=True)]

    async def readiness(self) -> Readiness:
        return await self._readiness()

    def _names(self) -> list[str]:
        return sorted([*self._embedders, *self._rerankers])

    def _search_service(self) -> SearchService:
        if self._searching is None:
            raise NotFound("this service has no collections: it serves models only (graphs.search serves both)")
        return self._searching


def _choose(name: str | None, models: Mapping[str, T], others: Mapping[str, object], *, wanted: str, other: str) -> T:
    name = _only(models, wanted) if name is None else name
    if name in models:
        return models[name]
    if name in others:
        raise WrongRole(f"model {name!r} has the role {other}; this request needs one of the {wanted}s: {sorted(models)}", field="model")
    raise UnknownModel(f"model {name!r} is not served here; the {wanted}s are {sorted(models)}", field="model")


def _only(models: Mapping[str, object], wanted: str) -> str:
    if len(models) != 1:
        raise InvalidRequest(f"model must name one of the {wanted}s of this service: {sorted(models)}", field="model")
    return next(iter(models))
