"""What a write must be before an engine may see it. A rejected upsert is partly in Qdrant's log already, and NaN goes in silently, so
everything is checked here, for every engine, and nothing is applied unless all of it is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from bgeserve.errors import FingerprintMismatch, InvalidRequest
from bgeserve.filters import MAX_INTEGER
from bgeserve.strict import CollectionName
from bgeserve.types import LEGS, Chunk, Embeddings, FindingLeg, Float32Array, Leg, Query, SparseVector, TokenVectors
from bgeserve.vector_store import CollectionSchema

Tokens = TypeVar("Tokens", bound=TokenVectors)

MAX_CHUNKS = 2**32
"""Per document."""

_MAX_FLOAT16 = float(np.finfo(np.float16).max)
_collection_name = TypeAdapter[str](CollectionName)


def check_write(schema: CollectionSchema, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
    """Raises InvalidRequest, naming the document and the field, or FingerprintMismatch."""
    check_fingerprint(schema, embeddings.fingerprint)
    if len(embeddings) != len(chunks):
        raise InvalidRequest(f"{len(chunks)} chunks came with the vectors of {len(embeddings)} texts", field="embeddings")
    for chunk in chunks:
        _check_chunk(chunk)
    _check_documents_whole(chunks)
    if schema.dimensions is not None:
        _check_dense(chunks, embeddings.dense, schema.dimensions)
    if schema.has_sparse:
        _check_all_sparse(chunks, embeddings.sparse)
    if schema.token_dimensions is not None:
        _check_all_tokens(chunks, embeddings.multi_vector, schema.token_dimensions)


def check_fingerprint(schema: CollectionSchema, fingerprint: str) -> None:
    if fingerprint != schema.fingerprint:
        raise FingerprintMismatch(
            f"the collection holds vectors of {schema.fingerprint}; what was sent is of {fingerprint}: the two cannot be compared",
            field="fingerprint",
        )


def legs_of(schema: CollectionSchema) -> list[Leg]:
    """What a collection can be asked by."""
    lacks = {"dense": schema.dimensions is None, "sparse": not schema.has_sparse, "multi_vector": schema.token_dimensions is None}
    return [leg for leg in LEGS if not lacks.get(leg)]


def check_leg(schema: CollectionSchema, leg: Leg) -> None:
    """Raises InvalidRequest when the collection has no such leg."""
    if leg not in legs_of(schema):
        raise InvalidRequest(f"the collection has no {leg} vectors", field="legs")


def check_query(schema: CollectionSchema, leg: FindingLeg, query: Query) -> None:
    """Raises InvalidRequest when the collection has no such leg, or the query no vector that can be compared with the collection's."""
    check_leg(schema, leg)
    if leg == "dense":
        if query.dense is None or query.dense.shape != (schema.dimensions,):
            sent = "none" if query.dense is None else f"one of shape {query.dense.shape}"
            raise InvalidRequest(f"the dense leg needs a query vector of {schema.dimensions} dimensions; there came {sent}", field="dense")
        if not np.isfinite(query.dense).all() or not query.dense.any():
            raise InvalidRequest("the dense query vector must be finite and not all zero", field="dense")
    if leg == "sparse":
        if query.sparse is None:
            raise InvalidRequest("the sparse leg needs a sparse query vector", field="sparse")
        _check_sparse(query.sparse, "the query")


def token_vectors_of(schema: CollectionSchema, query: Query) -> Float32Array:
    """A query's, for the multi_vector leg. Raises InvalidRequest as `check_query` does."""
    check_leg(schema, "multi_vector")
    return _checked_tokens(query.multi_vector, schema.token_dimensions, "the query")


def check_collection_name(collection: str, what: str = "a collection") -> None:
    try:
        _collection_name.validate_python(collection)
    except ValidationError as error:
        raise InvalidRequest(
            f"{what}'s name is 1 to 128 letters, digits, '.', '_', '@' and '-', beginning with a letter or digit; not {collection!r}",
            field=what.split()[-1],
        ) from error


def check_id(id: str) -> None:
    if not id or not _is_unicode(id):
        raise InvalidRequest(f"a document id must be a non-empty string of valid Unicode, not {id!r}", field="id")


def _check_chunk(chunk: Chunk) -> None:
    check_id(chunk.document_id)
    name = f"document {chunk.document_id!r}"
    for field, text in (("text", chunk.text), ("title", chunk.title)):
        if not _is_unicode(text):
            raise InvalidRequest(f"{name}: its {field} holds a lone surrogate, which is not valid Unicode", field=field)
    if not 0 <= chunk.n < MAX_CHUNKS or not 0 <= chunk.start <= chunk.end <= MAX_INTEGER:
        raise InvalidRequest(f"{name}: chunk {chunk.n} covers characters {chunk.start} to {chunk.end}", field="chunk")
    for field, value in chunk.metadata.items():
        if not field or not _is_unicode(field):
            raise InvalidRequest(f"{name}: {field!r} cannot name a metadata field", field="metadata")
        for single in value if isinstance(value, (list, tuple)) else (value,):
            _check_metadata_value(single, f"{name}: metadata field {field!r}")


def _check_metadata_value(value: object, where: str) -> None:
    if isinstance(value, str):
        right = _is_unicode(value)
    elif isinstance(value, int):
        right = abs(value) <= MAX_INTEGER
    else:
        right = isinstance(value, float) and math.isfinite(value)
    if not right:
        raise InvalidRequest(
            f"{where} is {value!r}: it must be a string, a boolean, a finite number (integers within ±{MAX_INTEGER}), or a list of these",
            field="metadata",
        )


def _check_documents_whole(chunks: Sequence[Chunk]) -> None:
    numbers: dict[str, list[int]] = {}
    for chunk in chunks:
        numbers.setdefault(chunk.document_id, []).append(chunk.n)
    for id, found in numbers.items():
        if sorted(found) != list(range(len(found))):
            raise InvalidRequest(f"document {id!r} must come whole, its chunks numbered from 0; it has {sorted(found)[:20]}", field="chunk")


def _check_dense(chunks: Sequence[Chunk], dense: Float32Array | None, dimensions: int) -> None:
    if dense is None or dense.shape != (len(chunks), dimensions):
        sent = "none" if dense is None else f"an array of shape {dense.shape}"
        raise InvalidRequest(f"dense vectors must be {len(chunks)} x {dimensions}; there came {sent}", field="dense")
    wrong = ~np.isfinite(dense).all(axis=1) | ~dense.any(axis=1)
    if wrong.any():
        id = chunks[int(wrong.argmax())].document_id
        raise InvalidRequest(f"document {id!r}: its dense vector must be finite and not all zero", field="dense")


def _check_all_sparse(chunks: Sequence[Chunk], sparse: Sequence[SparseVector] | None) -> None:
    if sparse is None or len(sparse) != len(chunks):
        raise InvalidRequest(f"{len(chunks)} sparse vectors are needed; there came {0 if sparse is None else len(sparse)}", field="sparse")
    for chunk, vector in zip(chunks, sparse, strict=True):
        _check_sparse(vector, f"document {chunk.document_id!r}")


def _check_sparse(vector: SparseVector, owner: str) -> None:
    indices, values = vector.indices, vector.values
    if indices.ndim != 1 or indices.shape != values.shape or indices.dtype != np.uint32:
        raise InvalidRequest(
            f"{owner}: sparse indices must be uint32 [n] and values [n]; they are {indices.dtype} {indices.shape} and {values.shape}",
            field="sparse",
        )
    if np.unique(indices).size != indices.size:
        raise InvalidRequest(f"{owner}: an index stands twice in its sparse vector", field="sparse")
    if not (np.isfinite(values) & (values > 0)).all():
        raise InvalidRequest(f"{owner}: sparse weights must be finite and above 0", field="sparse")


def _check_all_tokens(chunks: Sequence[Chunk], tokens: Sequence[TokenVectors] | None, dimensions: int) -> None:
    if tokens is None or len(tokens) != len(chunks):
        sent = 0 if tokens is None else len(tokens)
        raise InvalidRequest(f"token vectors of {len(chunks)} texts are needed; there came those of {sent}", field="multi_vector")
    for chunk, vectors in zip(chunks, tokens, strict=True):
        _checked_tokens(vectors, dimensions, f"document {chunk.document_id!r}")


def _checked_tokens(vectors: Tokens | None, dimensions: int | None, owner: str) -> Tokens:
    if vectors is None or vectors.ndim != 2 or vectors.shape[1] != dimensions or not len(vectors):
        sent = "none" if vectors is None else f"an array of shape {vectors.shape}"
        raise InvalidRequest(
            f"{owner}: token vectors must be at least one, of {dimensions} dimensions; there came {sent}", field="multi_vector"
        )
    if not (np.abs(vectors) <= _MAX_FLOAT16).all():
        raise InvalidRequest(f"{owner}: token vectors must be finite, and float16 must hold them", field="multi_vector")
    return vectors


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
