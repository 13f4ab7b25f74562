"""Short forms of what one does with the owner of collections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bgeserve.fusion import Fusion
from bgeserve.protocols import Retriever, WriteTicket
from bgeserve.store_settings import QdrantEdgeSettings
from bgeserve.types import Chunk, Hit
from tests.stores.samples import FINGERPRINT, embed, query


def settings(path: Path, **others: Any) -> QdrantEdgeSettings:
    return QdrantEdgeSettings(path=path / "store", create=True, min_free_bytes=2**20, **others)


async def begin(retriever: Retriever, chunks: Sequence[Chunk], collection: str = "default") -> WriteTicket:
    return await retriever.begin_write(collection, FINGERPRINT, {c.document_id: c.content_hash for c in chunks})


async def put(retriever: Retriever, *chunks: Chunk, collection: str = "default") -> WriteTicket:
    ticket = await begin(retriever, chunks, collection)
    changed = [c for c in chunks if c.document_id not in ticket.unchanged]
    await retriever.finish_write(collection, ticket, changed, embed(changed))
    return ticket


async def names(retriever: Retriever) -> list[str]:
    return [info.name for info in await retriever.collections()]


async def texts(retriever: Retriever, *ids: str) -> list[str]:
    return [c.text for c in await retriever.get("default", ids)]


async def search(retriever: Retriever, text: str, collection: str = "default", **changes: Any) -> list[Hit]:
    how: dict[str, Any] = {"fingerprint": FINGERPRINT, "legs": ["dense", "full_text"], "fusion": Fusion(), "candidates": 100, "limit": 10}
    return (await retriever.retrieve(collection, [query(text)], **{**how, **changes}))[0]
