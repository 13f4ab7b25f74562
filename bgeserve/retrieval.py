"""The owner of the collections, as an async `Retriever`: searches them, and gives writes their order and their durability.

Every step runs in one thread, so no two interleave. Writes go to it in pieces, one piece of all writers at a time: a search waits for a
piece and not for a write. Knows threads, pieces and commits; what a step does is in `ordered_store.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from bgeserve.errors import BgeServeError, InvalidRequest, Unavailable
from bgeserve.filters import Filter
from bgeserve.fusion import Fusion
from bgeserve.group_commit import GroupCommit
from bgeserve.observe import Observer
from bgeserve.ordered_store import OrderedStore
from bgeserve.protocols import WriteTicket
from bgeserve.store_metrics import StoreMetrics
from bgeserve.store_settings import EmbeddedStoreSettings, StoreSettings
from bgeserve.stores import open_store
from bgeserve.types import Chunk, CollectionInfo, EmbeddedChunks, Embeddings, Hit, Leg, Query

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_PIECE = 64
"""Documents or chunks per step; a document of more chunks is one step."""


class StoreRetriever:
    """Implements `Retriever` over a store that this object owns until `close`.

    Opening blocks, and raises StoreError.
    """

    def __init__(self, settings: StoreSettings, *, observer: Observer | None = None) -> None:
        self._observer = observer or Observer()
        folder = settings.path if isinstance(settings, EmbeddedStoreSettings) else None
        self._metrics = StoreMetrics(self._observer, settings.measured_documents, folder)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._store = self._thread.submit(_open, settings).result()
        self._writers = asyncio.Lock()
        self._commit = GroupCommit(self._flush, settings.commit_interval_s)
        self._copying: set[asyncio.Future[str]] = set()
        self._closed = False

    async def retrieve(
        self,
        collection: str,
        queries: Sequence[Query],
        *,
        fingerprint: str | None,
        legs: Sequence[Leg],
        fusion: Fusion,
        candidates: int,
        limit: int,
        filter: Filter | None = None,
    ) -> list[list[Hit]]:
        collection = self._store.resolve(collection)  # once: all queries of a call are answered by one collection
        with self._observer.duration("retrieve_s"):
            search = self._store.search
            return [await self._run(search, collection, query, fingerprint, legs, fusion, candidates, limit, filter) for query in queries]

    async def begin_write(self, collection: str, fingerprint: str, content_hashes: Mapping[str, str]) -> WriteTicket:
        collection = self._store.resolve(collection)
        sequence, begins_collection = await self._run(self._store.begin_write, collection, fingerprint, list(content_hashes))
        unchanged: set[str] = set()
        try:
            for ids in _pieces(list(content_hashes)):
                unchanged |= await self._run(self._store.mark_unchanged, collection, sequence, {id: content_hashes[id] for id in ids})
            if unchanged:
                # Whoever stored them may still be waiting for the disk.
                with self._metrics.write():
                    await self._commit.commit()
        except BaseException:
            self._end(collection, sequence)
            raise
        return WriteTicket(sequence, frozenset(unchanged), collection, begins_collection)

    async def finish_write(self, collection: str, ticket: WriteTicket, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        collection = ticket.collection or collection
        try:
            with self._metrics.write():
                await self._write(self._store.prepare, collection, ticket.sequence, chunks, embeddings)
                for rows in _whole_documents(chunks):
                    await self._write(self._store.apply, collection, ticket.sequence, rows, chunks, embeddings)
                await self._commit.commit()
        finally:
            self._end(collection, ticket.sequence)
        if self._metrics.is_due(collection):
            # Not awaited: the write is stored, whatever this finds.
            self._thread.submit(self._count, collection)

    async def abandon_write(self, collection: str, ticket: WriteTicket) -> None:
        self._end(ticket.collection or collection, ticket.sequence)

    async def delete(self, collection: str, ids: Sequence[str] | None, filter: Filter | None = None) -> int:
        if (ids is None) == (filter is None):
            raise InvalidRequest("a delete needs either ids or a filter", field="ids")
        collection = self._store.resolve(collection)
        sequence, found = await self._run(self._store.begin_delete, collection, ids, filter)
        try:
            deleted = [await self._write(self._store.delete, collection, sequence, some) for some in _pieces(found)]
            await self._commit.commit()
        finally:
            self._end(collection, sequence)
        return sum(deleted)

    async def get(self, collection: str, ids: Sequence[str]) -> list[Chunk]:
        collection = self._store.resolve(collection)
        pieces = [await self._run(self._store.get, collection, some) for some in _pieces(list(dict.fromkeys(ids)))]
        return [chunk for piece in pieces for chunk in piece]

    async def scroll(self, collection: str, *, limit: int, after: str | None = None) -> tuple[list[Chunk], str | None]:
        return await self._run(self._store.scroll, self._store.resolve(collection), limit, after)

    async def export(self, collection: str, *, limit: int, after: str | None = None) -> tuple[EmbeddedChunks, str | None]:
        return await self._run(self._store.export, self._store.resolve(collection), min(limit, MAX_PIECE), after)

    async def describe(self, collection: str) -> CollectionInfo:
        return await self._run(self._store.describe, self._store.resolve(collection))

    async def create(self, collection: str, like: Embeddings) -> None:
        await self._write(self._store.create, collection, like)
        await self._commit.commit()

    async def drop(self, collection: str) -> int:
        return await self._write(self._store.drop, self._store.resolve(collection))

    async def collections(self) -> list[CollectionInfo]:
        return await self._run(self._store.collections)

    async def aliases(self) -> Mapping[str, str]:
        return await self._run(self._store.aliases)

    async def set_alias(self, alias: str, collection: str) -> str | None:
        return await self._run(self._store.set_alias, alias, collection)

    async def remove_alias(self, alias: str) -> str:
        return await self._run(self._store.remove_alias, alias)

    async def copy(self, collection: str, name: str) -> str:
        copying = asyncio.ensure_future(self._copy(self._store.resolve(collection), name))
        self._copying.add(copying)
        copying.add_done_callback(self._copying.discard)
        # A caller who stops waiting must not let writes in while files are read.
        return await asyncio.shield(copying)

    async def _copy(self, collection: str, name: str) -> str:
        async with self._writers:
            await self._flush()
            with self._observer.duration("store_copy_s"):
                return await asyncio.to_thread(self._store.copy, collection, name)

    async def close(self) -> None:
        """Sync what was written and give the store back, after the copies that are being made; later calls raise Unavailable."""
        if not self._closed:
            self._closed = True
            await asyncio.gather(*self._copying, return_exceptions=True)
            await asyncio.wrap_future(self._thread.submit(self._store.close))
            self._thread.shutdown()

    async def _run(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise Unavailable("the store has been closed")
        return await asyncio.wrap_future(self._thread.submit(partial(step, *args, **kwargs)))

    async def _write(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._writers:
            self._commit.changed()
            return await self._run(step, *args, **kwargs)

    async def _flush(self) -> None:
        with self._observer.duration("store_flush_s"):
            await self._run(self._store.flush)

    def _count(self, collection: str) -> None:
        try:
            self._metrics.counted(collection, self._store.describe(collection).count)
        except BgeServeError as error:
            log.info("collection %r was not counted: %s", collection, error.message)

    def _end(self, collection: str, sequence: int) -> None:
        # Not awaited: it also runs while its caller is being cancelled, and the thread's queue puts it in its place.
        if not self._closed:
            self._thread.submit(self._store.end, collection, sequence)


def _open(settings: StoreSettings) -> OrderedStore:
    store = open_store(settings)
    try:
        return OrderedStore(store, settings.language, settings.measured_documents)
    except BaseException:
        store.close()
        raise


def _pieces(items: Sequence[T]) -> Generator[Sequence[T]]:
    for start in range(0, len(items), MAX_PIECE):
        yield items[start : start + MAX_PIECE]


def _whole_documents(chunks: Sequence[Chunk]) -> Generator[list[int]]:
    """Rows of whole documents, as many as make a piece."""
    rows_by_id: dict[str, list[int]] = {}
    for row, chunk in enumerate(chunks):
        rows_by_id.setdefault(chunk.document_id, []).append(row)
    piece: list[int] = []
    for rows in rows_by_id.values():
        if piece and len(piece) + len(rows) > MAX_PIECE:
            yield piece
            piece = []
        piece += rows
    if piece:
        yield piece
