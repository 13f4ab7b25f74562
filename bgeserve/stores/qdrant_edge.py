"""Qdrant inside this process: one folder, in it one folder and one shard per collection.

Knows the folder's owner, its collections by name, and the room on its disk. What a collection does is in `qdrant_collection.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from bgeserve.errors import InvalidRequest, NotFound, StorageFull, StoreError
from bgeserve.filters import Filter
from bgeserve.settings import QdrantEdgeSettings
from bgeserve.stores.bm25 import Bm25Encoder
from bgeserve.stores.folder import StoreFolder
from bgeserve.stores.qdrant_collection import QdrantCollection
from bgeserve.stores.validation import check_collection_name
from bgeserve.types import Chunk, Embeddings, Leg, Query
from bgeserve.vector_store import CollectionSchema, ScoredId


class QdrantEdgeStore:
    """Implements `VectorStore`. Raises StoreError when the folder cannot be owned or what lies in it cannot be opened."""

    def __init__(self, settings: QdrantEdgeSettings) -> None:
        Bm25Encoder(settings.language, 1.0)  # an unknown language is refused at start, not at the first write
        self._settings = settings
        self._collections: dict[str, QdrantCollection] = {}
        self._folder = StoreFolder(settings.path, settings.kind, settings.create)
        self._root = settings.path / "collections"
        try:
            self._root.mkdir(exist_ok=True)
            for path in sorted(self._root.iterdir()):
                if QdrantCollection.exists(path):
                    self._collections[path.name] = self._open(path.name)
        except BaseException:
            self.close()
            raise

    def collections(self) -> list[str]:
        return sorted(self._collections)

    def schema(self, collection: str) -> CollectionSchema | None:
        return self._collections[collection].schema if collection in self._collections else None

    def create(self, collection: str, schema: CollectionSchema) -> None:
        check_collection_name(collection)
        if collection in self._collections:
            raise InvalidRequest(f"collection {collection!r} exists already", field="collection")
        self.ensure_writable()
        self._collections[collection] = QdrantCollection.create(self._root / collection, schema)

    def drop(self, collection: str) -> None:
        self._collection(collection).drop()
        del self._collections[collection]

    def ensure_writable(self) -> None:
        # The engine writes through memory maps: on a full disk the kernel kills the process, so the last bytes are never used.
        disk = os.statvfs(self._settings.path)
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes < self._settings.min_free_bytes:
            raise StorageFull(
                f"the disk of store.path {self._settings.path} has {free_bytes} bytes left; "
                f"nothing is written while that is under min_free_bytes: {self._settings.min_free_bytes}"
            )

    def upsert(self, collection: str, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        self._writable(collection).upsert(chunks, embeddings)

    def delete(self, collection: str, document_ids: Sequence[str]) -> int:
        return self._writable(collection).delete(document_ids)

    def matching(self, collection: str, filter: Filter) -> list[str]:
        return self._collection(collection).matching(filter)

    def get(self, collection: str, document_ids: Sequence[str]) -> list[Chunk]:
        return self._collection(collection).get(document_ids)

    def content_hashes(self, collection: str, document_ids: Sequence[str]) -> dict[str, str]:
        return self._collection(collection).content_hashes(document_ids)

    def scroll(self, collection: str, limit: int, after: str | None) -> tuple[list[str], str | None]:
        return self._collection(collection).scroll(limit, after)

    def search(self, collection: str, leg: Leg, query: Query, limit: int, filter: Filter | None) -> list[ScoredId]:
        return self._collection(collection).search(leg, query, limit, filter)

    def fetch(self, collection: str, keys: Sequence[str]) -> list[Chunk]:
        return self._collection(collection).fetch(keys)

    def count(self, collection: str) -> int:
        return self._collection(collection).count()

    def flush(self) -> None:
        for collection in self._collections.values():
            collection.flush()

    def close(self) -> None:
        for collection in self._collections.values():
            collection.close()
        self._folder.close()

    def _open(self, name: str) -> QdrantCollection:
        collection = QdrantCollection.open(self._root / name)
        if collection.schema.language != self._settings.language:
            collection.close()
            raise StoreError(
                f"store.language is {self._settings.language!r}, but collection {name!r} was indexed with {collection.schema.language!r}: "
                "set it back, or index into a new folder",
                field="language",
            )
        return collection

    def _collection(self, name: str) -> QdrantCollection:
        if name not in self._collections:
            raise NotFound(f"there is no collection {name!r}", field="collection")
        return self._collections[name]

    def _writable(self, name: str) -> QdrantCollection:
        collection = self._collection(name)
        self.ensure_writable()
        return collection
