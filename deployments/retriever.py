"""The replica that owns the collections: `StoreRetriever` behind a deployment handle. Never more than one of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from bgeserve.errors import SettingsError, StoreInUse
from bgeserve.filters import Filter
from bgeserve.fusion import Fusion
from bgeserve.index_embedders import require_embedders
from bgeserve.protocols import WriteTicket
from bgeserve.store_settings import EmbeddedStoreSettings, StoreSettings
from bgeserve.stores.folder import is_store
from bgeserve.types import Chunk, CollectionInfo, EmbeddedChunks, Embeddings, Hit, Leg, Query
from deployments.handles import RemoteEmbedder
from deployments.replica import answers_refusals, observer, prepare_replica

if TYPE_CHECKING:
    from bgeserve.retrieval import StoreRetriever

DATA_VARIABLE = "BGE_SERVE_DATA"
DEFAULT_DATA = "~/.local/share/bge-serve"
TAKEOVER_S = 15.0
"""How long a folder may still have its former owner: Serve starts the next one before it has ended the one that hangs."""
POLL_S = 0.1


@serve.deployment()
class RetrieverDeployment:
    async def __init__(self, settings: StoreSettings, embedders: Mapping[str, DeploymentHandle[Any]]) -> None:
        """embedders: whose vectors the store may hold; the first makes the collections for which nobody chooses another."""
        prepare_replica()
        if isinstance(settings, EmbeddedStoreSettings):
            settings = settings.model_copy(update={"path": data_folder(settings.path)})
            refuse_a_new_index_elsewhere(settings, len(ray.nodes()))
        self._retriever = await _take_over(settings)
        remote = {name: RemoteEmbedder(handle, max_call_bytes=0) for name, handle in embedders.items()}
        try:
            await require_embedders(await self._retriever.collections(), remote)
        except BaseException:
            await self._retriever.close()
            raise

    @answers_refusals
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
        filter: Filter | None,
    ) -> list[list[Hit]]:
        return await self._retriever.retrieve(
            collection,
            queries,
            fingerprint=fingerprint,
            legs=legs,
            fusion=fusion,
            candidates=candidates,
            limit=limit,
            filter=filter,
        )

    @answers_refusals
    async def begin_write(self, collection: str, fingerprint: str, content_hashes: Mapping[str, str]) -> WriteTicket:
        return await self._retriever.begin_write(collection, fingerprint, content_hashes)

    @answers_refusals
    async def finish_write(self, collection: str, ticket: WriteTicket, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        await self._retriever.finish_write(collection, ticket, chunks, embeddings)

    @answers_refusals
    async def abandon_write(self, collection: str, ticket: WriteTicket) -> None:
        await self._retriever.abandon_write(collection, ticket)

    @answers_refusals
    async def delete(self, collection: str, ids: Sequence[str] | None, filter: Filter | None) -> int:
        return await self._retriever.delete(collection, ids, filter)

    @answers_refusals
    async def get(self, collection: str, ids: Sequence[str]) -> list[Chunk]:
        return await self._retriever.get(collection, ids)

    @answers_refusals
    async def scroll(self, collection: str, *, limit: int, after: str | None) -> tuple[list[Chunk], str | None]:
        return await self._retriever.scroll(collection, limit=limit, after=after)

    @answers_refusals
    async def export(self, collection: str, *, limit: int, after: str | None) -> tuple[EmbeddedChunks, str | None]:
        return await self._retriever.export(collection, limit=limit, after=after)

    @answers_refusals
    async def create(self, collection: str, like: Embeddings) -> None:
        await self._retriever.create(collection, like)

    @answers_refusals
    async def aliases(self) -> Mapping[str, str]:
        return await self._retriever.aliases()

    @answers_refusals
    async def set_alias(self, alias: str, collection: str) -> str | None:
        return await self._retriever.set_alias(alias, collection)

    @answers_refusals
    async def remove_alias(self, alias: str) -> str:
        return await self._retriever.remove_alias(alias)

    @answers_refusals
    async def describe(self, collection: str) -> CollectionInfo:
        return await self._retriever.describe(collection)

    @answers_refusals
    async def copy(self, collection: str, name: str) -> str:
        return await self._retriever.copy(collection, name)

    @answers_refusals
    async def drop(self, collection: str) -> int:
        return await self._retriever.drop(collection)

    @answers_refusals
    async def collections(self) -> list[CollectionInfo]:
        return await self._retriever.collections()

    async def __del__(self) -> None:
        # Serve awaits this when it stops the replica; a constructor that failed has nothing to close.
        if hasattr(self, "_retriever"):
            await self._retriever.close()


async def _take_over(settings: StoreSettings) -> StoreRetriever:
    # The engine is loaded only in the process that owns the collections.
    from bgeserve.retrieval import StoreRetriever

    give_up = monotonic() + TAKEOVER_S
    while True:
        try:
            return await asyncio.to_thread(StoreRetriever, settings, observer=observer())
        except StoreInUse:
            if monotonic() > give_up:
                raise
        await asyncio.sleep(POLL_S)


def refuse_a_new_index_elsewhere(settings: EmbeddedStoreSettings, nodes: int) -> None:
    """nodes: that the cluster has or had. Raises SettingsError where the index may be on another, and here one would begin empty."""
    if nodes > 1 and settings.node_resource is None and settings.create and not is_store(settings.path):
        raise SettingsError(
            f"store.path {settings.path} holds no index, and may on another of this cluster's {nodes} nodes: name a custom resource of the "
            "node that is to have it as store.node_resource",
            field="node_resource",
        )


def data_folder(path: Path) -> Path:
    """A relative path lies in the data directory: a replica's working directory is not that of whoever wrote the config."""
    return Path(os.environ.get(DATA_VARIABLE) or DEFAULT_DATA).expanduser() / path.expanduser()
