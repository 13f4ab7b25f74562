"""A chunk as a Qdrant point's id and payload, and back. Knows no vectors and no shard.

The engine's ids are UUIDs: the caller's id stands in the payload. A document's chunks have neighbouring ids, in their order, so that
a scroll meets them together.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from typing import Any

from qdrant_edge import FieldCondition, HasIdCondition, MatchAny, PayloadSchemaType, Record
from qdrant_edge import Filter as Condition

from bgeserve.errors import InvalidRequest
from bgeserve.stores.qdrant_filter import TERMS, filterable
from bgeserve.stores.validation import check_id
from bgeserve.types import Chunk

CHUNK_BITS = 32
INDEXED_FIELDS = {"document": PayloadSchemaType.Keyword, "n": PayloadSchemaType.Integer, TERMS: PayloadSchemaType.Keyword}
"""Without an index a condition is checked on every point: a hundred times slower."""

_NAMESPACE = uuid.UUID("6b6a2f0e-5d0b-5b53-9c0a-6a1f0f6c3f7e")


def point_id(chunk: Chunk) -> str:
    document = _document_uuid(chunk.document_id).int
    return str(uuid.UUID(int=(document >> CHUNK_BITS << CHUNK_BITS) | chunk.n))


def payload_of(chunk: Chunk) -> dict[str, Any]:
    return {
        "document": _document_uuid(chunk.document_id).hex,
        "id": chunk.document_id,
        "n": chunk.n,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
        # A string comes back as it was; a number could come back as one of another type.
        "metadata": json.dumps(dict(chunk.metadata)),
        "hash": chunk.content_hash,
        **filterable(chunk.metadata),
    }


def payload(point: Record) -> dict[str, Any]:
    return point.payload or {}


def chunk_of(point: Record) -> Chunk:
    stored = payload(point)
    return Chunk(stored["id"], stored["n"], stored["start"], stored["end"], stored["text"], json.loads(stored["metadata"]), stored["hash"])


def of_documents(ids: Iterable[str], except_points: Iterable[str] = ()) -> Condition:
    """Selects all chunks of these documents, save some."""
    documents = [_document_uuid(id).hex for id in ids]
    return Condition(must=[FieldCondition("document", match=MatchAny(documents))], must_not=[HasIdCondition(set(except_points))])


def first_chunks() -> Condition:
    """Selects one chunk of each document."""
    return Condition(must=[FieldCondition("n", match=MatchAny([0]))])


def cursor(after: str | None) -> str | None:
    """Raises InvalidRequest when this is not a cursor that a scroll gave."""
    try:
        return None if after is None else str(uuid.UUID(after))
    except ValueError as error:
        raise InvalidRequest(f"after must be the cursor that the last page came with, not {after!r}", field="after") from error


def _document_uuid(id: str) -> uuid.UUID:
    check_id(id)
    return uuid.uuid5(_NAMESPACE, id)
