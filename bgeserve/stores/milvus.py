"""The collections of a Milvus, by name: those with our prefix. Whose Milvus it is, is `milvus_lite.py`'s and `milvus_server.py`'s part."""

from __future__ import annotations

from typing import Any, cast

from pymilvus import MilvusClient

from bgeserve.errors import ServiceError, StoreError
from bgeserve.stores.bm25 import WordSplitter
from bgeserve.stores.milvus_collection import MilvusCollection
from bgeserve.stores.milvus_engine import Engine, call
from bgeserve.stores.milvus_names import described, description, stored_name
from bgeserve.stores.named_collections import NamedCollections
from bgeserve.vector_store import CollectionSchema


class MilvusCollections(NamedCollections[MilvusCollection]):
    """Raises StoreError when what is there cannot be opened, or is of another language."""

    def __init__(self, client: MilvusClient, engine: Engine, prefix: str, language: str | None) -> None:
        WordSplitter(language)  # an unknown language is refused at start, not at the first write
        super().__init__(language)
        self._engine = engine
        self._prefix = prefix
        self._client = client
        try:
            self._collections = self._find()
        except ServiceError as error:
            raise StoreError(f"the collections of store.kind milvus cannot be opened: {error.message}", field="kind") from error

    def _find(self) -> dict[str, MilvusCollection]:
        """Everything that the client's Milvus has of ours, opened."""
        opened: dict[str, MilvusCollection] = {}
        # The client's types say that its answers are awaited; they are not.
        for stored_as in sorted(cast("list[str]", call("*", self._client.list_collections))):
            if stored_as.startswith(self._prefix):
                found = cast("dict[str, Any]", call(stored_as, self._client.describe_collection, stored_as))
                name, schema = described(stored_as, found["description"])
                self._require_same(name, schema)
                opened[name] = MilvusCollection(self._client, self._engine, stored_as, name, schema)
        return opened

    def close(self) -> None:
        for collection in self._collections.values():
            collection.close()
        self._client.close()

    def _make(self, name: str, schema: CollectionSchema) -> MilvusCollection:
        stored_as = stored_name(self._prefix, name)
        return MilvusCollection.create(self._client, self._engine, stored_as, name, schema, description(name, schema))
