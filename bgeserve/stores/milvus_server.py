"""A Milvus server, a cluster, or Zilliz, by URI. Knows the connection and its secrets, no collections."""

from __future__ import annotations

import grpc
from pymilvus import MilvusClient, MilvusException

from bgeserve.errors import StoreError
from bgeserve.store_settings import MilvusSettings
from bgeserve.stores.milvus import MilvusCollections
from bgeserve.stores.milvus_collection import Engine
from bgeserve.stores.secrets import secret


class MilvusStore(MilvusCollections):
    """Raises StoreError when the server cannot be reached or refuses the token."""

    def __init__(self, settings: MilvusSettings) -> None:
        try:
            client = MilvusClient(
                settings.uri, token=secret(settings.token_env, "token_env"), db_name=settings.database, timeout=settings.timeout_s
            )
        except (MilvusException, grpc.RpcError) as error:
            raise StoreError(f"store.uri {settings.uri} cannot be used: {error}", field="uri") from error
        try:
            # The index is the server's choice (on Zilliz the only one): approximate, and built as rows come.
            engine = Engine(dense_index="AUTOINDEX", has_not=True, timeout_s=settings.timeout_s)
            super().__init__(client, engine, settings.collection_prefix, settings.language)
        except BaseException:
            client.close()
            raise

    def ensure_writable(self) -> None:
        """Nothing to look at: a server refuses what it has no room for."""

    def flush(self) -> None:
        """Nothing to do: a server acknowledges what is in its log. Milvus's own flush cuts segments short, for which it is rationed."""
