"""A chunk as a Milvus row and back, and the schema of such rows. Knows no client's calls.

The full-text leg is Milvus's own BM25, over words that are cut, stemmed and rid of stop words here: Lite has no stemmer and no analyzer for
Chinese, and one way of making words gives every store the same ones.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np
from pymilvus import CollectionSchema as MilvusSchema
from pymilvus import DataType, FieldSchema, Function, FunctionType

from bgeserve.errors import InvalidRequest
from bgeserve.stores.bm25 import WordSplitter
from bgeserve.stores.exporting import StoredVectors, ascending
from bgeserve.stores.keys import chunk_key, document_key
from bgeserve.stores.milvus_filter import TERMS
from bgeserve.stores.ranges import filterable
from bgeserve.stores.terms import TERM_LENGTH
from bgeserve.types import Chunk, Embeddings, Float16Array, SparseVector, TokenVectors, titled
from bgeserve.vector_store import CollectionSchema

MAX_BYTES = 65_535
"""Of one string: Milvus's own limit."""
MAX_TERMS = 4096
"""Keywords per chunk: Milvus's limit of an array. A metadata value takes one, a number or date 17."""
STORED = ["document", "n", "text", "record"]
"""The fields that make a chunk."""

_KEY_LENGTH = 32
_PART_BYTES = MAX_BYTES // 4 * 3
"""Of token vectors per string: base64 makes four characters of three bytes."""
_MAX_TOKEN_PARTS = 4096
"""Milvus's limit of an array."""
_NOWHERE = {2**32 - 2: 1e-30}
"""In place of an empty sparse vector, which Milvus refuses: an index that no vocabulary has, with a weight that `search` takes for none."""


def milvus_schema(schema: CollectionSchema, description: str, tokens_in_rows: bool) -> MilvusSchema:
    """`tokens_in_rows`: whether the rows hold token vectors too, if the collection has any."""
    fields = [
        FieldSchema("key", DataType.VARCHAR, is_primary=True, max_length=_KEY_LENGTH),
        FieldSchema("document", DataType.VARCHAR, max_length=_KEY_LENGTH),
        FieldSchema("n", DataType.INT64),
        FieldSchema("text", DataType.VARCHAR, max_length=MAX_BYTES),
        FieldSchema("record", DataType.VARCHAR, max_length=MAX_BYTES),
        FieldSchema("words", DataType.VARCHAR, max_length=MAX_BYTES, enable_analyzer=True, analyzer_params={"tokenizer": "whitespace"}),
        FieldSchema(TERMS, DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=MAX_TERMS, max_length=TERM_LENGTH),
        FieldSchema("full_text", DataType.SPARSE_FLOAT_VECTOR, is_function_output=True),
    ]
    if schema.dimensions is not None:
        fields.append(FieldSchema("dense", DataType.FLOAT_VECTOR, dim=schema.dimensions))
    if schema.has_sparse:
        fields.append(FieldSchema("sparse", DataType.SPARSE_FLOAT_VECTOR))
    if schema.token_dimensions is not None and tokens_in_rows:
        text, most = DataType.VARCHAR, _MAX_TOKEN_PARTS
        fields.append(FieldSchema("multi_vector", DataType.ARRAY, element_type=text, max_capacity=most, max_length=MAX_BYTES))
    bm25 = Function("bm25", FunctionType.BM25, ["words"], ["full_text"])
    return MilvusSchema(fields, description=description, functions=[bm25], enable_dynamic_field=False)


def rows_of(
    chunks: Sequence[Chunk], embeddings: Embeddings, schema: CollectionSchema, splitter: WordSplitter, tokens_in_rows: bool
) -> list[dict[str, Any]]:
    """Raises InvalidRequest when one does not fit, naming the document."""
    rows: list[dict[str, Any]] = []
    for i, chunk in enumerate(chunks):
        row = _row(chunk, splitter)
        _require_fit(chunk, row)
        if schema.dimensions is not None and embeddings.dense is not None:
            row["dense"] = embeddings.dense[i]
        if schema.has_sparse and embeddings.sparse is not None:
            row["sparse"] = engine_sparse(embeddings.sparse[i]) or _NOWHERE
        if tokens_in_rows and schema.token_dimensions is not None and embeddings.multi_vector is not None:
            row["multi_vector"] = _engine_tokens(embeddings.multi_vector[i])
        rows.append(row)
    return rows


def chunk_of(row: dict[str, Any]) -> Chunk:
    record = json.loads(row["record"])
    return Chunk(record["id"], row["n"], record["start"], record["end"], row["text"], record["metadata"], record["hash"], record["title"])


def document_id_of(row: dict[str, Any]) -> str:
    """Of a row of which no more than `record` was read."""
    return json.loads(row["record"])["id"]


def engine_sparse(vector: SparseVector) -> dict[int, float]:
    return dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))


def stored_vectors(row: dict[str, Any], tokens: Float16Array | None) -> StoredVectors:
    sparse: dict[int, float] | None = row.get("sparse")
    return StoredVectors(
        row.get("dense"),
        None if sparse is None or sparse.keys() == _NOWHERE.keys() else ascending(list(sparse), list(sparse.values())),
        None if tokens is None else tokens.astype(np.float32),
    )


def tokens_of(row: dict[str, Any], dimensions: int) -> Float16Array:
    """[vectors, dimensions], of a row that holds them."""
    return np.frombuffer(b"".join(map(b64decode, row["multi_vector"])), np.float16).reshape(-1, dimensions)


def token_numbers(row: dict[str, Any]) -> int:
    """How many numbers the token vectors have that a row holds."""
    return sum(map(len, row.get("multi_vector", ()))) // 4 * 3 // 2


def _engine_tokens(vectors: TokenVectors) -> list[str]:
    """As text, since Milvus has neither arrays of numbers that are long enough nor, before 2.6.4, several vectors a row."""
    content = vectors.astype(np.float16).tobytes()
    return [b64encode(content[start : start + _PART_BYTES]).decode() for start in range(0, len(content), _PART_BYTES)]


def _row(chunk: Chunk, splitter: WordSplitter) -> dict[str, Any]:
    # As text, numbers and flags come back with the types that they had.
    metadata = dict(chunk.metadata)
    place = {"start": chunk.start, "end": chunk.end}
    record = {"id": chunk.document_id, "title": chunk.title, **place, "metadata": metadata, "hash": chunk.content_hash}
    return {
        "key": chunk_key(chunk),
        "document": document_key(chunk.document_id),
        "n": chunk.n,
        "text": chunk.text,
        "record": json.dumps(record, ensure_ascii=False),
        "words": " ".join(splitter.words(titled(chunk.title, chunk.text))),
        TERMS: filterable(chunk.metadata),
    }


def _require_fit(chunk: Chunk, row: dict[str, Any]) -> None:
    for field, what in (("text", "its text"), ("words", "the words of its text"), ("record", "its id and metadata")):
        if (size := len(row[field].encode())) > MAX_BYTES:
            message = f"document {chunk.document_id!r}, chunk {chunk.n}: {what} would be {size} bytes; Milvus stores {MAX_BYTES}"
            raise InvalidRequest(message, field="metadata" if field == "record" else "text")
    if len(row[TERMS]) > MAX_TERMS:
        message = f"document {chunk.document_id!r}: its metadata would be {len(row[TERMS])} keywords (17 a number or date)"
        raise InvalidRequest(f"{message}; Milvus stores {MAX_TERMS}", field="metadata")
