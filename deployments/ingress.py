"""The door: HTTP for the world, and the same calls for whoever holds the application's handle, with numpy in and out.

handle = serve.get_app_handle("search")
vectors = handle.encode.remote(texts, outputs=("dense", "sparse"), lane="bulk").result()
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ray import serve
from starlette.applications import Starlette

from bgeserve.api.app import create_app
from bgeserve.api.keyring import keyring_of
from bgeserve.api.model_server import ModelServer
from bgeserve.caller import Caller
from bgeserve.deadline import Deadline
from bgeserve.filters import Filter
from bgeserve.model_load import ModelLoad
from bgeserve.protocols import Readiness, SearchRequest
from bgeserve.service import PROTOCOLS, SearchService, Service
from bgeserve.settings import IngressSettings, ModelSettings, SearchSettings
from bgeserve.splitting import max_call_bytes
from bgeserve.types import (
    CollectionInfo,
    Document,
    EmbeddedChunks,
    EmbedderOptions,
    Embeddings,
    InputType,
    Lane,
    ModelInfo,
    ModelStatus,
    Output,
    RerankerOptions,
    Role,
    Scores,
    SearchAnswer,
    WriteResult,
)
from deployments.handles import RemoteEmbedder, RemoteReranker, RemoteRetriever
from deployments.replica import observer, prepare_replica
from deployments.states import RUNNING, DeploymentStates

Bound = Any
"""A deployment that a graph binds; in the replica, Serve has put its handle in the place."""


@dataclass(frozen=True)
class Model:
    """A deployed model. Its settings are here so that a change of them replaces the ingress too, and what it remembers of the model."""

    handle: Bound
    settings: ModelSettings


@dataclass(frozen=True)
class Index:
    """What makes a graph a search service: the owner of the collections, and the embedder that fills those for which none is chosen."""

    retriever: Bound
    embedder: str
    settings: SearchSettings


class _Ingress:
    def __init__(
        self, settings: IngressSettings, embedders: Mapping[str, Model], rerankers: Mapping[str, Model], index: Index | None = None
    ) -> None:
        prepare_replica(is_ingress=True)
        self._settings = settings
        self._service = _RemoteService(embedders, rerankers, index)
        self._model_server = ModelServer(self._service, settings)

    def __serve_build_asgi_app__(self) -> Starlette:
        # Serve's own server puts the request's id into every answer.
        return create_app(self._service, self._settings, keyring_of(os.environ, observer()), answers_request_id=False)

    async def encode(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        outputs: Sequence[Output] = ("dense",),
        input_type: InputType = "document",
        options: EmbedderOptions | None = None,
        truncate: bool = True,
        lane: Lane = "interactive",
        timeout_s: float | None = None,
        tenant: str = "",
    ) -> Embeddings:
        return await self._service.encode(
            model,
            texts,
            outputs=outputs,
            input_type=input_type,
            options=options,
            truncate=truncate,
            caller=Caller(lane, Deadline(timeout_s), tenant),
        )

    async def rerank(
        self,
        query: str,
        passages: Sequence[str],
        *,
        model: str | None = None,
        options: RerankerOptions | None = None,
        truncate: bool = True,
        lane: Lane = "interactive",
        timeout_s: float | None = None,
        tenant: str = "",
    ) -> Scores:
        return await self._service.rerank(
            model, query, passages, options=options, truncate=truncate, caller=Caller(lane, Deadline(timeout_s), tenant)
        )

    async def search(self, request: SearchRequest) -> SearchAnswer:
        return await self._service.search(request)

    async def put_documents(
        self,
        collection: str,
        documents: Sequence[Document],
        *,
        truncate: bool = True,
        lane: Lane = "bulk",
        timeout_s: float | None = None,
        tenant: str = "",
    ) -> WriteResult:
        return await self._service.put_documents(collection, documents, truncate=truncate, caller=Caller(lane, Deadline(timeout_s), tenant))

    async def get_documents(self, collection: str, ids: Sequence[str]) -> list[Document]:
        return await self._service.get_documents(collection, ids)

    async def scroll_documents(self, collection: str, *, limit: int, after: str | None = None) -> tuple[list[Document], str | None]:
        return await self._service.scroll_documents(collection, limit=limit, after=after)

    async def delete_documents(self, collection: str, ids: Sequence[str] | None, filter: Filter | None = None) -> int:
        return await self._service.delete_documents(collection, ids, filter)

    async def export_chunks(self, collection: str, *, limit: int, after: str | None = None) -> tuple[EmbeddedChunks, str | None]:
        return await self._service.export_chunks(collection, limit=limit, after=after)

    async def import_chunks(self, collection: str, documents: EmbeddedChunks) -> WriteResult:
        return await self._service.import_chunks(collection, documents)

    async def collections(self) -> list[CollectionInfo]:
        return await self._service.collections()

    async def aliases(self) -> Mapping[str, str]:
        return await self._service.aliases()

    async def set_alias(self, alias: str, collection: str) -> str | None:
        return await self._service.set_alias(alias, collection)

    async def remove_alias(self, alias: str) -> str:
        return await self._service.remove_alias(alias)

    async def create_collection(self, collection: str, embedder: str | None = None) -> CollectionInfo:
        return await self._service.create_collection(collection, embedder)

    async def describe_collection(self, collection: str) -> CollectionInfo:
        return await self._service.describe_collection(collection)

    async def copy_collection(self, collection: str, name: str) -> str:
        return await self._service.copy_collection(collection, name)

    async def delete_collection(self, collection: str) -> int:
        return await self._service.delete_collection(collection)

    async def models(self) -> list[ModelInfo]:
        return await self._service.models()

    async def model_statuses(self) -> list[ModelStatus]:
        return await self._service.model_statuses()

    async def model_loads(self) -> list[ModelLoad]:
        return await self._service.model_loads()

    async def readiness(self) -> Readiness:
        return await self._service.readiness()

    async def inference(self, request: dict[str, Any], *, lane: Lane = "interactive", timeout_s: float | None = None) -> dict[str, Any]:
        """As `POST /inference`, and so on for the next two: `{"state": "ok" | "error", "msg": ...}`."""
        return await self._model_server.inference(request, Caller(lane, Deadline(timeout_s)))

    async def info(self, request: dict[str, Any]) -> dict[str, Any]:
        return await self._model_server.info(request)

    async def support_methods(self, request: dict[str, Any]) -> dict[str, Any]:
        return await self._model_server.support_methods(request)


Ingress = serve.deployment()(serve.ingress()(_Ingress))


class _RemoteService(Service):
    """The service over handles, which also knows how many replicas stand behind each."""

    def __init__(self, embedders: Mapping[str, Model], rerankers: Mapping[str, Model], index: Index | None) -> None:
        self._states = DeploymentStates(serve.get_replica_context().app_name)
        self._models = {**embedders, **rerankers}
        self._roles: Mapping[Role, Sequence[str]] = {"embedder": list(embedders), "reranker": list(rerankers)}
        remote_embedders = {name: RemoteEmbedder(model.handle, *_limits(model)) for name, model in embedders.items()}
        remote_rerankers = {name: RemoteReranker(model.handle, *_limits(model)) for name, model in rerankers.items()}
        searching = None
        if index is not None:
            retriever = RemoteRetriever(index.retriever, partial(self._states.runs, index.retriever.deployment_name))
            others = [embedder for name, embedder in remote_embedders.items() if name != index.embedder]
            embedder = remote_embedders[index.embedder]
            searching = SearchService(embedder, retriever, remote_rerankers, index.settings, others, observer())
        super().__init__(remote_embedders, remote_rerankers, searching, self._states.readiness)

    async def model_info(self, name: str) -> ModelInfo:
        info = await super().model_info(name)
        state = await self._states.of(self._models[name].handle.deployment_name)
        return replace(info, replicas=state.replicas.get(RUNNING, 0))

    async def model_statuses(self) -> list[ModelStatus]:
        return [await self._status(name, role) for role, names in self._roles.items() for name in names]

    async def _status(self, name: str, role: Role) -> ModelStatus:
        model = self._models[name]
        state = await self._states.of(model.handle.deployment_name)
        return ModelStatus(name, role, model.settings.model, state.available, state.replicas, PROTOCOLS[role])


def _limits(model: Model) -> tuple[int, int]:
    """Bytes of a call, and how many replicas may share a request's."""
    return max_call_bytes(model.settings.resolved_max_batch_tokens), model.settings.replicas.max
