"""A chunk as a Qdrant point's id and payload, and back. Knows no vectors and no shard.

The engine's ids are UUIDs (`keys.py`): the caller's id stands in the payload.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from typing import Any

from bgeserve.stores.keys import chunk_key, document_key
from bgeserve.stores.qdrant_filter import TERMS, filterable
from bgeserve.stores.qdrant_shard import Condition, Payload
from bgeserve.types import Chunk

INDEXED_FIELDS = {"document": "keyword", "n": "integer", TERMS: "keyword"}
"""Without an index a condition is checked on every point: a hundred times slower."""


def point_id(chunk: Chunk) -> str:
    return str(uuid.UUID(chunk_key(chunk)))


def payload_of(chunk: Chunk) -> dict[str, Any]:
    return {
        "document": document_key(chunk.document_id),
        "id": chunk.document_id,
        "n": chunk.n,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
        "title": chunk.title,
        # A string comes back as it was; a number could come back as one of another type.
        "metadata": json.dumps(dict(chunk.metadata)),
        "hash": chunk.content_hash,
        **filterable(chunk.metadata),
    }


def chunk_of(stored: Payload) -> Chunk:
    metadata = json.loads(stored["metadata"])
    return Chunk(stored["id"], stored["n"], stored["start"], stored["end"], stored["text"], metadata, stored["hash"], stored["title"])


def of_documents(ids: Iterable[str], except_points: Iterable[str] = ()) -> Condition:
    """Selects all chunks of these documents, save some."""
    documents = [document_key(id) for id in ids]
    return {"must": [{"key": "document", "match": {"any": documents}}], "must_not": [{"has_id": list(except_points)}]}


def first_chunks() -> Condition:
    """Selects one chunk of each document."""
    return {"must": [{"key": "n", "match": {"any": [0]}}]}
