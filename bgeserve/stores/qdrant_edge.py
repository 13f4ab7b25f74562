"""Qdrant inside this process: one folder, in it one folder and one shard per collection.

Knows the folder's owner, its collections by name, and the room on its disk. What a collection does is in `qdrant_collection.py`,
what its folder holds in `qdrant_edge_shard.py`.
"""

from __future__ import annotations

from bgeserve.errors import StoreError
from bgeserve.store_settings import QdrantEdgeSettings
from bgeserve.stores.bm25 import Bm25Encoder
from bgeserve.stores.folder import StoreFolder
from bgeserve.stores.folder_copy import copy_store
from bgeserve.stores.named_collections import NamedCollections
from bgeserve.stores.qdrant_collection import QdrantCollection
from bgeserve.stores.qdrant_edge_shard import EdgeShard
from bgeserve.stores.qdrant_shard import Lexicon
from bgeserve.stores.validation import check_collection_name
from bgeserve.vector_store import CollectionSchema


class QdrantEdgeStore(NamedCollections[QdrantCollection[EdgeShard]]):
    """Implements `VectorStore`. Raises StoreError when the folder cannot be owned or what lies in it cannot be opened."""

    def __init__(self, settings: QdrantEdgeSettings) -> None:
        Bm25Encoder(settings.language, 1.0)  # an unknown language is refused at start, not at the first write
        super().__init__(settings.language, settings.quantization)
        self._settings = settings
        self._folder = StoreFolder(settings.path, settings.kind, settings.create)
        self._root = settings.path / "collections"
        try:
            self._root.mkdir(exist_ok=True)
            for path in sorted(self._root.iterdir()):
                if EdgeShard.exists(path):
                    self._collections[path.name] = self._open(path.name)
            self._aliases = self._folder.aliases()
        except BaseException:
            self.close()
            raise

    def ensure_writable(self) -> None:
        # The engine writes through memory maps: on a full disk the kernel kills the process, so the last bytes are never used.
        self._folder.ensure_room(self._settings.min_free_bytes)

    def copy(self, collection: str, name: str) -> str:
        check_collection_name(name, "a copy")
        self._collection(collection)
        made = copy_store(self._folder, self._root / collection, name, self._settings.min_free_bytes)
        return str(made)

    def flush(self) -> None:
        for collection in self._collections.values():
            collection.shard.flush()

    def close(self) -> None:
        for collection in self._collections.values():
            collection.shard.close()
        self._folder.close()

    def _keep_alias(self, alias: str, collection: str | None) -> None:
        self._folder.keep_alias(alias, collection)

    def _make(self, name: str, schema: CollectionSchema) -> QdrantCollection[EdgeShard]:
        shard = EdgeShard.create(self._root / name, schema)
        collection = QdrantCollection(shard, schema, Lexicon(), self._settings.oversampling)
        shard.seal(schema)
        return collection

    def _open(self, name: str) -> QdrantCollection[EdgeShard]:
        shard, schema, lexicon = EdgeShard.open(self._root / name)
        try:
            self._require_same(name, schema)
        except StoreError:
            shard.close()
            raise
        return QdrantCollection(shard, schema, lexicon, self._settings.oversampling)
