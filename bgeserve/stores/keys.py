"""A chunk's key in a store: a UUID in hexadecimal, whatever the caller's id is. A document's chunks have neighbouring keys, in their order,
so that a scroll in the order of keys meets them together.
"""

from __future__ import annotations

import uuid

from bgeserve.errors import InvalidRequest
from bgeserve.stores.validation import check_id
from bgeserve.types import Chunk

CHUNK_BITS = 32

_NAMESPACE = uuid.UUID("6b6a2f0e-5d0b-5b53-9c0a-6a1f0f6c3f7e")


def document_key(id: str) -> str:
    check_id(id)
    return uuid.uuid5(_NAMESPACE, id).hex


def chunk_key(chunk: Chunk) -> str:
    document = int(document_key(chunk.document_id), 16)
    return f"{(document >> CHUNK_BITS << CHUNK_BITS) | chunk.n:032x}"


def cursor(after: str | None) -> str | None:
    """The key that a cursor is. Raises InvalidRequest when no scroll gave it."""
    try:
        return None if after is None else uuid.UUID(after).hex
    except ValueError as error:
        raise InvalidRequest(f"after must be the cursor that the last page came with, not {after!r}", field="after") from error
