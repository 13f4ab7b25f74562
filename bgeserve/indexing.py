"""Writing documents, top to bottom: accept -> cut and embed what changed -> store.

Knows the order that makes writes safe: the owner decides a write's place before anything is embedded, so that a slow
embedding never undoes a later write.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import astuple, replace
from functools import partial

import numpy as np

from bgeserve.caller import ANYONE, Caller
from bgeserve.chunking import join_chunks
from bgeserve.errors import BgeServeError, FingerprintMismatch, StaleWrite, TextTooLong
from bgeserve.index_embedders import IndexEmbedders
from bgeserve.protocols import Embedder, Retriever, WriteTicket
from bgeserve.splitting import select_embeddings
from bgeserve.types import Chunk, Chunking, Document, EmbeddedChunks, Embeddings, Output, WriteResult, titled


class IndexPipeline:
    def __init__(
        self, embedders: IndexEmbedders, retriever: Retriever, outputs: Sequence[Output], chunking: Chunking | None = None
    ) -> None:
        """chunking: None keeps every document whole."""
        self._embedders = embedders
        self._retriever = retriever
        self._outputs = outputs
        self._chunking = chunking

    async def put(self, collection: str, documents: Sequence[Document], *, truncate: bool, caller: Caller) -> WriteResult:
        """Store documents by id, replacing those of the same id; durable on return. Ids must be unique among `documents`.

        Raises FingerprintMismatch (the collection holds another model's vectors), StorageFull, Overloaded, DeadlineExceeded,
        InvalidRequest.
        """
        uncut = [whole(document, self._chunking) for document in documents]
        return await self._again_once(collection, partial(self._put, collection, uncut, truncate, caller))

    async def put_embedded(self, collection: str, documents: EmbeddedChunks) -> WriteResult:
        """Store whole documents with the vectors that they came with; durable on return.

        Raises FingerprintMismatch (no embedder of this service made them, or the collection holds another's), StorageFull,
        InvalidRequest.
        """
        fingerprint = documents.embeddings.fingerprint
        if await self._embedders.with_fingerprint(fingerprint) is None:
            ours = (await self._embedders.default.info()).fingerprint
            message = f"the vectors are of {fingerprint}, which no embedder of this service makes (the default's are of {ours})"
            raise FingerprintMismatch(message, field="fingerprint")
        return await self._again_once(collection, partial(self._put_embedded, collection, documents))

    async def make(self, collection: str, embedder: Embedder | None = None) -> None:
        """Make an empty collection, as the first write of this embedder's vectors would; None: the default one's."""
        vectors = await (embedder or self._embedders.default).encode(["any"], outputs=self._outputs, caller=ANYONE)
        await self._retriever.create(collection, vectors)
        self._embedders.forget(collection)

    async def _again_once(self, collection: str, put: Callable[[], Awaitable[WriteResult]]) -> WriteResult:
        try:
            return await put()
        except (StaleWrite, FingerprintMismatch):
            # The owner restarted in between, an alias was pointed elsewhere, or a rollout changed the model: all are settled by
            # beginning again, once.
            self._embedders.forget(collection)
            return await put()

    async def _put(self, collection: str, uncut: Sequence[Chunk], truncate: bool, caller: Caller) -> WriteResult:
        collection, embedder = await self._embedders.of(collection)
        fingerprint = (await embedder.info()).fingerprint or ""
        async with self._accepted(collection, fingerprint, uncut) as ticket:
            if ticket.begins_collection and embedder is not self._embedders.default:
                raise StaleWrite(f"collection {collection!r} has been dropped since its embedder was looked up: begin again")
            changed = [each for each in uncut if each.document_id not in ticket.unchanged]
            if not changed:
                await self._retriever.abandon_write(collection, ticket)
                return WriteResult(upserted=0, unchanged=len(ticket.unchanged), tokens=0)
            chunks: Sequence[Chunk] = ()
            try:
                chunks = await self._cut(changed, embedder)
                embeddings = await embedder.encode(
                    [titled(chunk.title, chunk.text) for chunk in chunks],
                    outputs=self._outputs,
                    input_type="document",
                    truncate=truncate,
                    caller=caller,
                )
            except TextTooLong as error:
                if error.index is None:
                    raise
                ids = [each.document_id for each in uncut]
                raise error.at("documents", ids.index(chunks[error.index].document_id)) from None
            await self._retriever.finish_write(collection, ticket, chunks, await _as_stored(embeddings))
        truncated = dict.fromkeys(chunk.document_id for chunk, was_cut in zip(chunks, embeddings.truncated, strict=True) if was_cut)
        return WriteResult(upserted=len(changed), unchanged=len(ticket.unchanged), tokens=sum(embeddings.tokens), truncated=list(truncated))

    async def _put_embedded(self, collection: str, documents: EmbeddedChunks) -> WriteResult:
        chunks, embeddings = documents.chunks, documents.embeddings
        async with self._accepted(collection, embeddings.fingerprint, chunks) as ticket:
            rows = [row for row, chunk in enumerate(chunks) if chunk.document_id not in ticket.unchanged]
            changed = [chunks[row] for row in rows]
            if changed:
                await self._retriever.finish_write(collection, ticket, changed, await _as_stored(select_embeddings(embeddings, rows)))
            else:
                await self._retriever.abandon_write(collection, ticket)
        return WriteResult(len({chunk.document_id for chunk in changed}), len(ticket.unchanged), tokens=0)

    @asynccontextmanager
    async def _accepted(self, collection: str, fingerprint: str, chunks: Sequence[Chunk]) -> AsyncGenerator[WriteTicket]:
        """A write that has begun; one that fails is abandoned."""
        content_hashes = {chunk.document_id: chunk.content_hash for chunk in chunks}
        ticket = await self._retriever.begin_write(collection, fingerprint, content_hashes)
        try:
            yield ticket
        except BaseException:
            with suppress(BgeServeError):  # an owner that is gone has forgotten the write already
                await self._retriever.abandon_write(collection, ticket)
            raise

    async def _cut(self, uncut: Sequence[Chunk], embedder: Embedder) -> Sequence[Chunk]:
        if self._chunking is None:
            return uncut
        found = await embedder.chunk([each.text for each in uncut], self._chunking)
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
