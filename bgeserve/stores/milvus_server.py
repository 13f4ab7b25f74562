"""A Milvus server, a cluster, or Zilliz, by URI. Knows the connection and its secrets, no collections."""

from __future__ import annotations

from typing import cast

import grpc
from pymilvus import MilvusClient, MilvusException

from bgeserve.errors import StoreError
from bgeserve.store_settings import MilvusSettings
from bgeserve.stores.milvus import MilvusCollections
from bgeserve.stores.milvus_engine import Engine, call
from bgeserve.stores.milvus_names import alias_of, stored_alias, stored_name
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
            self._aliases = self._find_aliases()
        except BaseException:
            client.close()
            raise

    def ensure_writable(self) -> None:
        """Nothing to look at: a server refuses what it has no room for."""

    def flush(self) -> None:
        """Nothing to do: a server acknowledges what is in its log. Milvus's own flush cuts segments short, for which it is rationed."""

    def _keep_alias(self, alias: str, collection: str | None) -> None:
        """Native aliases of the server, so that its other clients have them too."""
        client, stored_as = self._client, stored_alias(self._prefix, alias)
        if collection is None:
            call(alias, client.drop_alias, stored_as)
        else:
            change = client.alter_alias if alias in self._aliases else client.create_alias
            call(collection, change, stored_name(self._prefix, collection), stored_as)

    def _find_aliases(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in self._collections:
            answer = cast("dict[str, list[str]]", call(name, self._client.list_aliases, stored_name(self._prefix, name)))
            found.update({alias_of(self._prefix, each): name for each in answer["aliases"] if each.startswith(self._prefix)})
        return found
