"""A Qdrant server or cluster: its collections with our prefix. Knows the connection and its secrets, not the calls
(`qdrant_server_shard.py`).

Search is the server's: approximate once it has built its graphs, and exact below that size.
"""

from __future__ import annotations

import math

from qdrant_client import QdrantClient, models

from bgeserve.errors import StoreError
from bgeserve.store_settings import QdrantSettings
from bgeserve.stores.bm25 import Bm25Encoder
from bgeserve.stores.named_collections import NamedCollections
from bgeserve.stores.qdrant_collection import QdrantCollection
from bgeserve.stores.qdrant_server_shard import ServerShard, call
from bgeserve.stores.qdrant_shard import Lexicon
from bgeserve.stores.secrets import secret
from bgeserve.vector_store import CollectionSchema


def connect(settings: QdrantSettings) -> QdrantClient:
    """Raises StoreError when the named variable is not set. Whether the server is there shows with the first call."""
    key = secret(settings.api_key_env, "api_key_env") or None
    return QdrantClient(settings.url, api_key=key, timeout=math.ceil(settings.timeout_s), check_compatibility=False)


class QdrantStore(NamedCollections[QdrantCollection[ServerShard]]):
    """Owns the client. Raises StoreError when the server cannot be used, or what is there is not as the settings say."""

    def __init__(
        self, client: QdrantClient, prefix: str, language: str | None, quantization: str = "none", oversampling: float = 1
    ) -> None:
        super().__init__(language, quantization)
        self._oversampling = oversampling
        self._client = client
        self._prefix = prefix
        with self._opening("store.url"):
            Bm25Encoder(language, 1.0)  # an unknown language is refused at start, not at the first write
            self._open_all()

    def ensure_writable(self) -> None:
        """Nothing to look at: a server refuses what it has no room for."""

    def flush(self) -> None:
        """Nothing to do: a server acknowledges what is in its log."""

    def close(self) -> None:
        self._client.close()

    def _open_all(self) -> None:
        for found in call("*", self._client.get_collections).collections:
            if found.name.startswith(self._prefix):
                shard = ServerShard(self._client, found.name)
                name = found.name.removeprefix(self._prefix)
                schema, lexicon = shard.described()
                self._require_same(name, schema)
                self._collections[name] = QdrantCollection(shard, schema, lexicon, self._oversampling)
        found = {each.alias_name: each.collection_name for each in call("*", self._client.get_aliases).aliases}
        ours = {alias: named for alias, named in found.items() if alias.startswith(self._prefix)}
        self._aliases = {alias.removeprefix(self._prefix): self._named(named) for alias, named in ours.items()}

    def _named(self, stored_as: str) -> str:
        if not stored_as.startswith(self._prefix):
            message = f"an alias with the prefix {self._prefix!r} names collection {stored_as!r}, which bge-serve did not make"
            raise StoreError(message, field="collection_prefix")
        return stored_as.removeprefix(self._prefix)

    def _keep_alias(self, alias: str, collection: str | None) -> None:
        """Native aliases of the server, so that its other clients have them too."""
        stored_as = self._prefix + alias
        changes: list[models.AliasOperations] = []
        if alias in self._aliases:
            changes.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=stored_as)))
        if collection is not None:
            made = models.CreateAlias(collection_name=self._prefix + collection, alias_name=stored_as)
            changes.append(models.CreateAliasOperation(create_alias=made))
        # Both in one request are one step there.
        call(collection or alias, self._client.update_collection_aliases, changes)

    def _make(self, name: str, schema: CollectionSchema) -> QdrantCollection[ServerShard]:
        shard = ServerShard.create(self._client, self._prefix + name, schema)
        return QdrantCollection(shard, schema, Lexicon(), self._oversampling)
