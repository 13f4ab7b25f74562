"""Writing documents, top to bottom: accept -> cut and embed what changed -> store.

Knows the order that makes writes safe: the owner decides a write's place before anything is embedded, so that a slow
embedding never undoes a later write.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, replace

import numpy as np

from bgeserve.caller import Caller
from bgeserve.chunking import join_chunks
from bgeserve.errors import BgeServeError, FingerprintMismatch, StaleWrite, TextTooLong
from bgeserve.protocols import Embedder, Retriever
from bgeserve.types import Chunk, Chunking, Document, Embeddings, Output, WriteResult, titled


class IndexPipeline:
    def __init__(self, embedder: Embedder, retriever: Retriever, outputs: Sequence[Output], chunking: Chunking | None = None) -> None:
        """chunking: None keeps every document whole."""
        self._embedder = embedder
        self._retriever = retriever
        self._outputs = outputs
        self._chunking = chunking

    async def put(self, collection: str, documents: Sequence[Document], *, truncate: bool, caller: Caller) -> WriteResult:
        """Store documents by id, replacing those of the same id; durable on return. Ids must be unique among `documents`.

        Raises FingerprintMismatch (the collection holds another model's vectors), StorageFull, Overloaded, DeadlineExceeded,
        InvalidRequest.
        """
        uncut = [whole(document, self._chunking) for document in documents]
        try:
            return await self._put(collection, uncut, truncate, caller)
        except (StaleWrite, FingerprintMismatch):
            # The owner restarted in between, or a rollout changed the model: both are settled by beginning again, once.
            return await self._put(collection, uncut, truncate, caller)

    async def _put(self, collection: str, uncut: Sequence[Chunk], truncate: bool, caller: Caller) -> WriteResult:
        fingerprint = (await self._embedder.info()).fingerprint or ""
        ticket = await self._retriever.begin_write(collection, fingerprint, {each.document_id: each.content_hash for each in uncut})
        changed = [each for each in uncut if each.document_id not in ticket.unchanged]
        if not changed:
            await self._retriever.abandon_write(collection, ticket)
            return WriteResult(upserted=0, unchanged=len(ticket.unchanged), tokens=0)
        chunks: Sequence[Chunk] = ()
        try:
            chunks = await self._cut(changed)
            embeddings = await self._embedder.encode(
                [titled(chunk.title, chunk.text) for chunk in chunks],
                outputs=self._outputs,
                input_type="document",
                truncate=truncate,
                caller=caller,
            )
            await self._retriever.finish_write(collection, ticket, chunks, await _as_stored(embeddings))
        except BaseException as error:
            with suppress(BgeServeError):  # an owner that is gone has forgotten the write already
                await self._retriever.abandon_write(collection, ticket)
            if isinstance(error, TextTooLong) and error.index is not None:
                ids = [each.document_id for each in uncut]
                raise error.at("documents", ids.index(chunks[error.index].document_id)) from None
            raise
        truncated = dict.fromkeys(chunk.document_id for chunk, was_cut in zip(chunks, embeddings.truncated, strict=True) if was_cut)
        return WriteResult(upserted=len(changed), unchanged=len(ticket.unchanged), tokens=sum(embeddings.tokens), truncated=list(truncated))

    async def _cut(self, uncut: Sequence[Chunk]) -> Sequence[Chunk]:
        if self._chunking is None:
            return uncut
        found = await self._embedder.chunk([each.text for each in uncut], self._chunking)
        return [
            replace(each, n=n, start=start, end=end, text=each.text[start:end])
            for each, spans in zip(uncut, found, strict=True)
            for n, (start, end) in enumerate(spans)
        ]


async def _as_stored(embeddings: Embeddings) -> Embeddings:
    """Token vectors as every store keeps them: half the bytes on the way to the owner."""
    vectors = embeddings.multi_vector
    if vectors is None:
        return embeddings
    halved = await asyncio.to_thread(lambda: [each.astype(np.float16) for each in vectors])
    return replace(embeddings, multi_vector=halved)


def whole(document: Document, chunking: Chunking | None = None) -> Chunk:
    """A document as its only chunk; its hash also says how it is going to be cut."""
    more = [*([document.title] if document.title else ()), *(() if chunking is None else astuple(chunking))]
    content = json.dumps([document.text, dict(document.metadata), *more], sort_keys=True)
    content_hash = hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
    return Chunk(document.id, 0, 0, len(document.text), document.text, document.metadata, content_hash, document.title)


def documents_of(chunks: Sequence[Chunk]) -> list[Document]:
    """The documents that all these chunks make up; each document's stand together, in order."""
    by_id: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        by_id.setdefault(chunk.document_id, []).append(chunk)
    return [
        Document(id, join_chunks([each.text for each in parts], [each.start for each in parts]), parts[0].metadata, parts[0].title)
        for id, parts in by_id.items()
    ]
