"""Documents with their vectors, out of a collection and into one: it moves to another store or service without being embedded again.

Vectors travel as base64, in the shapes in which `/v1/encode` answers them. Schema and mapping together.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from math import prod
from typing import Annotated, Any, NotRequired, cast

import numpy as np
from pydantic import AfterValidator, BeforeValidator, FailFast, Field, PlainValidator, ValidationInfo, WithJsonSchema
from typing_extensions import TypedDict

from bgeserve.api.collections import COLLECTION, CheckedMetadata, Id, collection_of
from bgeserve.api.encoding import Matrix, Vector, json_bytes, matrix, vector
from bgeserve.api.native import SparseResponse
from bgeserve.api.operation import Answer, Call, Operation
from bgeserve.api.schema import Body, check_items, limits_of, refuse
from bgeserve.errors import InvalidRequest
from bgeserve.quoting import brief
from bgeserve.strict import CollectionName
from bgeserve.types import Chunk, EmbeddedChunks, Embeddings, Float32Array, SparseVector, Uint32Array

DEFAULT_DOCUMENTS = 16
MAX_DOCUMENTS = 64

# -- out -------------------------------------------------------------------------------------------------------------------------------


class ExportQuery(Body):
    limit: Annotated[int, Field(ge=1, le=MAX_DOCUMENTS)] = DEFAULT_DOCUMENTS
    """Documents; each comes with all its chunks."""
    after: str | None = None
    """The `next` of the page before."""


class ChunkResponse(TypedDict):
    id: str
    """Of its document."""
    n: int
    start: int
    end: int
    title: str
    text: str
    metadata: CheckedMetadata
    content_hash: str
    dense: NotRequired[Vector]
    sparse: NotRequired[SparseResponse]
    multi_vector: NotRequired[Matrix]


class ExportResponse(TypedDict):
    fingerprint: str
    """Which model made the vectors."""
    chunks: list[ChunkResponse]
    next: str | None
    """What to send as `after` for the next page; null after the last."""


async def export_chunks(call: Call, query: ExportQuery) -> Answer:
    documents, following = await call.backend.export_chunks(collection_of(call), limit=query.limit, after=query.after)
    embeddings = documents.embeddings

    def render() -> ExportResponse:
        chunks = [_chunk_response(chunk, embeddings, i) for i, chunk in enumerate(documents.chunks)]
        return {"fingerprint": embeddings.fingerprint, "chunks": chunks, "next": following}

    return Answer(render, json_bytes(embeddings) + sum(len(chunk.text) + 300 for chunk in documents.chunks))


def _chunk_response(chunk: Chunk, embeddings: Embeddings, i: int) -> ChunkResponse:
    response: ChunkResponse = {
        "id": chunk.document_id,
        "n": chunk.n,
        "start": chunk.start,
        "end": chunk.end,
        "title": chunk.title,
        "text": chunk.text,
        "metadata": dict(chunk.metadata),
        "content_hash": chunk.content_hash,
    }
    if embeddings.dense is not None:
        response["dense"] = vector(embeddings.dense[i], "base64")
    if embeddings.sparse is not None:
        weights = embeddings.sparse[i]
        response["sparse"] = {"indices": vector(weights.indices, "base64"), "values": vector(weights.values, "base64")}
    if embeddings.multi_vector is not None:
        response["multi_vector"] = matrix(embeddings.multi_vector[i], "base64")
    return response


# -- in --------------------------------------------------------------------------------------------------------------------------------


def _numbers(sent: object, dtype: str) -> Any:
    if not isinstance(sent, str):
        refuse(f"must be base64 of little-endian 4-byte values, not {brief(sent)}")
    try:
        return np.frombuffer(b64decode(sent, validate=True), dtype)
    except (binascii.Error, ValueError) as error:
        refuse(f"must be base64 of little-endian 4-byte values: {error}")


def _floats(sent: object) -> Any:
    return _numbers(sent, "<f4")


def _indices(sent: object) -> Any:
    return _numbers(sent, "<u4")


_BASE64: dict[str, Any] = {"type": "string", "contentEncoding": "base64"}
Floats = Annotated[Float32Array, PlainValidator(_floats), WithJsonSchema(_BASE64)]
Indices = Annotated[Uint32Array, PlainValidator(_indices), WithJsonSchema(_BASE64)]


class SparseBody(Body):
    indices: Indices
    values: Floats


class MatrixBody(Body):
    shape: Annotated[list[int], Field(min_length=2, max_length=2)]
    base64: Floats


class ChunkBody(Body):
    id: Id
    n: Annotated[int, Field(ge=0)]
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]
    title: str = ""
    text: str
    metadata: CheckedMetadata = Field(default_factory=dict)
    content_hash: Annotated[str, Field(min_length=1, max_length=128)]
    """Of the document; all its chunks carry one, and a document whose hash is stored already is left as it is."""
    dense: Floats | None = None
    sparse: SparseBody | None = None
    multi_vector: MatrixBody | None = None


def _check_count(sent: object, info: ValidationInfo) -> object:
    return check_items(sent, limits_of(info), "chunks")


def _check_alike(chunks: list[ChunkBody]) -> list[ChunkBody]:
    for i, chunk in enumerate(chunks):
        for name in ("dense", "sparse", "multi_vector"):
            if (getattr(chunk, name) is None) != (getattr(chunks[0], name) is None):
                refuse("must be there in every chunk or in none, as in chunks[0]", f"[{i}].{name}")
        if chunk.dense is not None and chunk.dense.size != (size := cast("Float32Array", chunks[0].dense).size):
            refuse(f"must have {size} dimensions, as that of chunks[0], not {chunk.dense.size}", f"[{i}].dense")
        rows = chunk.multi_vector
        if rows is not None and prod(rows.shape) != rows.base64.size:
            refuse(f"has {rows.base64.size} values, which cannot have the shape {rows.shape}", f"[{i}].multi_vector")
    return chunks


class ImportBody(Body):
    fingerprint: str
    """Which model made the vectors: one of this service's embedders."""
    chunks: Annotated[list[ChunkBody], FailFast(), BeforeValidator(_check_count), AfterValidator(_check_alike)]
    """Of whole documents, each document's together."""


class ImportResponse(TypedDict):
    upserted: int
    """Documents."""
    unchanged: int


async def import_chunks(call: Call, body: ImportBody) -> Answer:
    chunks = [Chunk(each.id, each.n, each.start, each.end, each.text, each.metadata, each.content_hash, each.title) for each in body.chunks]
    if wrong := next((chunk for chunk in chunks if chunk.end < chunk.start), None):
        raise InvalidRequest(f"document {wrong.document_id!r}: chunk {wrong.n} ends before it starts", field="chunks")
    written = await call.backend.import_chunks(collection_of(call), EmbeddedChunks(chunks, _embeddings(body)))
    response: ImportResponse = {"upserted": written.upserted, "unchanged": written.unchanged}
    return Answer(lambda: response)


def _embeddings(body: ImportBody) -> Embeddings:
    dense = [each.dense for each in body.chunks if each.dense is not None]
    sparse = [SparseVector(each.sparse.indices, each.sparse.values) for each in body.chunks if each.sparse is not None]
    rows = [each.multi_vector.base64.reshape(each.multi_vector.shape) for each in body.chunks if each.multi_vector is not None]
    return Embeddings(
        body.fingerprint,
        tokens=[0] * len(body.chunks),
        truncated=[False] * len(body.chunks),
        dense=np.stack(dense) if dense else None,
        sparse=sparse or None,
        multi_vector=rows or None,
    )


# -- copies ----------------------------------------------------------------------------------------------------------------------------


class CopyBody(Body):
    name: CollectionName
    """Of the copy: a folder of this name in `copies/` of the store's own."""


class CopyResponse(TypedDict):
    collection: str
    path: str
    """The folder on the machine of the collection's owner: a store of its own."""


async def copy_collection(call: Call, body: CopyBody) -> Answer:
    collection = collection_of(call)
    path = await call.backend.copy_collection(collection, body.name)
    response: CopyResponse = {"collection": collection, "path": path}
    return Answer(lambda: response)


_CHUNKS = f"{COLLECTION}/chunks"
OPERATIONS = (
    Operation(
        "POST",
        f"{COLLECTION}/copies",
        "Copy an embedded collection into a store of its own",
        CopyBody,
        CopyResponse,
        copy_collection,
        right="admin",
    ),
    Operation("GET", _CHUNKS, "Documents with their vectors, page by page", ExportQuery, ExportResponse, export_chunks, right="admin"),
    Operation(
        "PUT", _CHUNKS, "Store documents with their vectors; nothing is embedded", ImportBody, ImportResponse, import_chunks, right="admin"
    ),
)
