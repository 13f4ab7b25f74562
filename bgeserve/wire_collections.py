"""What is asked about collections as a whole, and what is answered: which there are, their aliases, and their documents with all vectors.

As `wire`, whose `Request` it makes; sends nothing.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from bgeserve import answers
from bgeserve.splitting import concat_embeddings, select_embeddings
from bgeserve.types import Chunk, CollectionInfo, EmbeddedChunks, Embeddings, WriteResult
from bgeserve.wire import WRITE_TIMEOUT_S, Request

FIRST_PAGE_DOCUMENTS = 4
MAX_PAGE_DOCUMENTS = 64
MAX_PAGE_BYTES = 4 * 2**20
"""Of text and vectors in one request; only a single document that is larger is sent as it is."""


def collection(name: str) -> Request[CollectionInfo]:
    return Request("GET", _collection(name), answers.collection_info)


def collections() -> Request[list[CollectionInfo]]:
    return Request("GET", "/v1/collections", lambda answer: [answers.collection_info(each) for each in answer["collections"]])


def create_collection(name: str, embedder: str | None) -> Request[CollectionInfo]:
    return Request("PUT", _collection(name), answers.collection_info, {"embedder": embedder}, timeout_s=WRITE_TIMEOUT_S)


def delete_collection(name: str) -> Request[int]:
    return Request("DELETE", _collection(name), lambda answer: answer["deleted"], timeout_s=WRITE_TIMEOUT_S)


def copy_collection(collection: str, name: str) -> Request[str]:
    return Request("POST", f"{_collection(collection)}/copies", lambda answer: answer["path"], {"name": name}, timeout_s=WRITE_TIMEOUT_S)


def aliases() -> Request[dict[str, str]]:
    return Request("GET", "/v1/aliases", lambda answer: dict(answer["aliases"]))


def set_alias(alias: str, collection: str) -> Request[str | None]:
    return Request("PUT", _alias(alias), lambda answer: answer["before"], {"collection": collection})


def remove_alias(alias: str) -> Request[str]:
    return Request("DELETE", _alias(alias), lambda answer: answer["before"])


def export_chunks(collection: str, documents: int, after: str | None) -> Request[tuple[EmbeddedChunks, str | None]]:
    query: dict[str, str | int] = {"limit": documents} if after is None else {"limit": documents, "after": after}
    return Request("GET", f"{_collection(collection)}/chunks", _page, query=query, timeout_s=WRITE_TIMEOUT_S)


def import_chunks(collection: str, documents: EmbeddedChunks) -> Request[WriteResult]:
    chunks = [_chunk(chunk, documents.embeddings, row) for row, chunk in enumerate(documents.chunks)]
    body = {"fingerprint": documents.embeddings.fingerprint, "chunks": chunks}
    return Request("PUT", f"{_collection(collection)}/chunks", _written, body, lane="bulk", timeout_s=WRITE_TIMEOUT_S)


def next_page_documents(documents: int, page: EmbeddedChunks) -> int:
    """More while pages are small, fewer when they are large: a document may have any number of chunks."""
    size = bytes_of(page)
    if size > MAX_PAGE_BYTES:
        return max(1, documents // 2)
    return min(MAX_PAGE_DOCUMENTS, 2 * documents) if size < MAX_PAGE_BYTES // 4 else documents


def bytes_of(documents: EmbeddedChunks) -> int:
    embeddings = documents.embeddings
    arrays = [each for vector in embeddings.sparse or () for each in (vector.indices, vector.values)]
    arrays += [*(embeddings.multi_vector or ()), *(() if embeddings.dense is None else (embeddings.dense,))]
    return sum(array.nbytes for array in arrays) + sum(len(chunk.text) for chunk in documents.chunks)


def split_chunks(documents: Iterable[EmbeddedChunks]) -> Iterator[EmbeddedChunks]:
    """As many whole documents together as make one request, from a stream whose pieces may end within a document."""
    batch: list[EmbeddedChunks] = []
    size = 0
    for document in _single_documents(documents):
        document_bytes = bytes_of(document)
        if batch and (len(batch) == MAX_PAGE_DOCUMENTS or size + document_bytes > MAX_PAGE_BYTES):
            yield _joined(batch)
            batch, size = [], 0
        batch.append(document)
        size += document_bytes
    if batch:
        yield _joined(batch)


def _single_documents(pieces: Iterable[EmbeddedChunks]) -> Iterator[EmbeddedChunks]:
    begun: list[EmbeddedChunks] = []
    for piece in pieces:
        rows = range(len(piece.chunks))
        for id, found in groupby(rows, lambda row: piece.chunks[row].document_id):  # noqa: B023 (used up before the next piece)
            some = list(found)
            if begun and begun[0].chunks[0].document_id != id:
                yield _joined(begun)
                begun = []
            begun.append(EmbeddedChunks([piece.chunks[row] for row in some], select_embeddings(piece.embeddings, some)))
    if begun:
        yield _joined(begun)


def _joined(parts: list[EmbeddedChunks]) -> EmbeddedChunks:
    return EmbeddedChunks([chunk for part in parts for chunk in part.chunks], concat_embeddings([part.embeddings for part in parts]))


def _page(answer: Any) -> tuple[EmbeddedChunks, str | None]:
    items: list[Any] = answer["chunks"]
    chunks = [
        Chunk(
            item["id"], item["n"], item["start"], item["end"], item["text"], item["metadata"], item["content_hash"], item.get("title", "")
        )
        for item in items
    ]
    return EmbeddedChunks(chunks, _embeddings(answer["fingerprint"], items)), answer["next"]


def _embeddings(fingerprint: str, items: list[Any]) -> Embeddings:
    if not items:
        return Embeddings(fingerprint, tokens=(), truncated=())
    vectors = [{"tokens": 0, "truncated": False, **item} for item in items]
    return answers.embeddings({"fingerprint": fingerprint, "data": vectors})


def _chunk(chunk: Chunk, embeddings: Embeddings, row: int) -> dict[str, Any]:
    sent: dict[str, Any] = {
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
        sent["dense"] = _base64(embeddings.dense[row])
    if embeddings.sparse is not None:
        weights = embeddings.sparse[row]
        sent["sparse"] = {"indices": _base64(weights.indices), "values": _base64(weights.values)}
    if embeddings.multi_vector is not None:
        rows = embeddings.multi_vector[row]
        sent["multi_vector"] = {"shape": list(rows.shape), "base64": _base64(rows.astype(np.float32, copy=False))}
    return sent


def _base64(values: NDArray[np.float32] | NDArray[np.uint32]) -> str:
    return b64encode(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data).decode()


def _written(answer: Any) -> WriteResult:
    return WriteResult(answer["upserted"], answer["unchanged"], tokens=0)


def _collection(name: str) -> str:
    return f"/v1/collections/{quote(name, safe='')}"


def _alias(alias: str) -> str:
    return f"/v1/aliases/{quote(alias, safe='')}"
