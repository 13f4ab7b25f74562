"""Writing documents, top to bottom: accept -> embed what changed -> store.

Knows the order that makes writes safe: the owner decides a write's place before anything is embedded, so that a slow
embedding never undoes a later write.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress

from bgeserve.deadline import Deadline
from bgeserve.errors import BgeServeError, FingerprintMismatch, StaleWrite, TextTooLong
from bgeserve.protocols import Embedder, Retriever
from bgeserve.types import Chunk, Document, Lane, Output, WriteResult


class IndexPipeline:
    def __init__(self, embedder: Embedder, retriever: Retriever, outputs: Sequence[Output]) -> None:
        self._embedder = embedder
        self._retriever = retriever
        self._outputs = outputs

    async def put(
        self, collection: str, documents: Sequence[Document], *, truncate: bool, lane: Lane, timeout_s: float | None, tenant: str = ""
    ) -> WriteResult:
        """Store documents by id, replacing those of the same id; durable on return. Ids must be unique among `documents`.

        Raises FingerprintMismatch (the collection holds another model's vectors), StorageFull, Overloaded, DeadlineExceeded,
        InvalidRequest.
        """
        chunks = [whole(document) for document in documents]
        deadline = Deadline(timeout_s)
        try:
            return await self._put(collection, chunks, truncate, lane, deadline, tenant)
        except (StaleWrite, FingerprintMismatch):
            # The owner restarted in between, or a rollout changed the model: both are settled by beginning again, once.
            return await self._put(collection, chunks, truncate, lane, deadline, tenant)

    async def _put(
        self, collection: str, chunks: Sequence[Chunk], truncate: bool, lane: Lane, deadline: Deadline, tenant: str
    ) -> WriteResult:
        fingerprint = (await self._embedder.info()).fingerprint or ""
        ticket = await self._retriever.begin_write(collection, fingerprint, {chunk.document_id: chunk.content_hash for chunk in chunks})
        changed = [chunk for chunk in chunks if chunk.document_id not in ticket.unchanged]
        if not changed:
            await self._retriever.abandon_write(collection, ticket)
            return WriteResult(upserted=0, unchanged=len(ticket.unchanged), tokens=0)
        try:
            embeddings = await self._embedder.encode(
                [chunk.text for chunk in changed],
                outputs=self._outputs,
                input_type="document",
                truncate=truncate,
                lane=lane,
                timeout_s=deadline.remaining_s(),
                tenant=tenant,
            )
            await self._retriever.finish_write(collection, ticket, changed, embeddings)
        except BaseException as error:
            with suppress(BgeServeError):  # an owner that is gone has forgotten the write already
                await self._retriever.abandon_write(collection, ticket)
            if isinstance(error, TextTooLong) and error.index is not None:
                raise error.at("documents", chunks.index(changed[error.index])) from None
            raise
        cut = [chunk.document_id for chunk, truncated in zip(changed, embeddings.truncated, strict=True) if truncated]
        return WriteResult(upserted=len(changed), unchanged=len(ticket.unchanged), tokens=sum(embeddings.tokens), truncated=cut)


def whole(document: Document) -> Chunk:
    """A document as its only chunk."""
    content = json.dumps([document.text, dict(document.metadata)], sort_keys=True)
    content_hash = hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
    return Chunk(document.id, 0, 0, len(document.text), document.text, document.metadata, content_hash)


def document_of(chunk: Chunk) -> Document:
    return Document(chunk.document_id, chunk.text, chunk.metadata)
