"""A Vespa application as a store: its collections with our prefix, and their aliases. Knows the catalogue there, not what is in chunks.

Which collections there are, and of what each is made, stands in documents of one type; so do aliases, which Vespa has not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bgeserve.errors import ServiceError, StoreError
from bgeserve.store_settings import VespaSettings
from bgeserve.stores.bm25 import WordSplitter
from bgeserve.stores.named_collections import NamedCollections
from bgeserve.stores.vespa_client import VespaClient
from bgeserve.stores.vespa_collection import VespaCollection, namespace_keyword
from bgeserve.stores.vespa_filter import any_of
from bgeserve.stores.vespa_package import CATALOGUE, MAX_HITS, Shape
from bgeserve.vector_store import CollectionSchema

FORMAT = 1
_MAKE_IT = "write the package with `bge-serve vespa-package` and deploy it"


class VespaStore(NamedCollections[VespaCollection]):
    """Raises StoreError when Vespa cannot be used, its application is not ours, or what is there is not as the settings say."""

    def __init__(self, settings: VespaSettings) -> None:
        WordSplitter(settings.language)  # an unknown language is refused at start, not at the first write
        super().__init__(settings.language)
        self._prefix = settings.collection_prefix
        self._exact = settings.exact
        self._client = VespaClient(settings)
        with self._opening(f"store.url {settings.url}"):
            self._open_all()

    def ensure_writable(self) -> None:
        """Nothing to look at: Vespa refuses what it has no room for."""

    def flush(self) -> None:
        """Nothing to do: Vespa acknowledges what is in its log."""

    def close(self) -> None:
        self._client.close()

    def drop(self, collection: str) -> None:
        super().drop(collection)
        self._forget("collection", collection)

    def _open_all(self) -> None:
        if not self._client.has_type(CATALOGUE):
            raise StoreError(f"the application of store.url has no document type {CATALOGUE!r}: {_MAKE_IT}", field="url")
        where = any_of("service", [namespace_keyword(self._prefix)])
        hits = self._client.query(CATALOGUE, where, "records", MAX_HITS, {"ranking.profile": "unranked"}).hits
        aliases: dict[str, str] = {}
        for record in (self._read(hit["fields"]["record"]) for hit in hits):
            if record["kind"] == "alias":
                aliases[record["name"]] = record["collection"]
            else:
                schema = CollectionSchema(**record["schema"])
                self._require_same(record["name"], schema)
                self._require_type(schema)
                self._collections[record["name"]] = self._collection_of(record["name"], schema)
        self._aliases = aliases

    def _read(self, text: str) -> Mapping[str, Any]:
        record: Mapping[str, Any] = json.loads(text)
        if record["format"] != FORMAT:
            message = f"the catalogue of {self._prefix!r} is of format {record['format']}; this version reads {FORMAT}"
            raise StoreError(message, field="collection_prefix")
        return record

    def _make(self, name: str, schema: CollectionSchema) -> VespaCollection:
        self._require_type(schema)
        made = self._collection_of(name, schema)
        self._remember("collection", name, schema=asdict(schema))
        return made

    def _keep_alias(self, alias: str, collection: str | None) -> None:
        if collection is None:
            self._forget("alias", alias)
        else:
            self._remember("alias", alias, collection=collection)

    def _require_type(self, schema: CollectionSchema) -> None:
        """Raises ServiceError, naming the document type that is missing."""
        needed = Shape.of(schema).document_type
        if not self._client.has_type(needed):
            raise ServiceError(f"Vespa's application has no document type {needed!r}: {_MAKE_IT}")

    def _collection_of(self, name: str, schema: CollectionSchema) -> VespaCollection:
        return VespaCollection(self._client, self._prefix + name, schema, self._exact)

    def _remember(self, kind: str, name: str, **what: object) -> None:
        record = json.dumps({"format": FORMAT, "kind": kind, "name": name, **what})
        fields = {"service": namespace_keyword(self._prefix), "record": record}
        self._client.put(CATALOGUE, self._prefix, {f"{kind}.{name}": fields})

    def _forget(self, kind: str, name: str) -> None:
        self._client.remove(CATALOGUE, self._prefix, [f"{kind}.{name}"])
