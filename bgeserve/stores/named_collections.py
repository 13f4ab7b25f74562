"""A store as collections by name: what is left to an engine is how one is made, how it is given back, and whether there is room."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from bgeserve.errors import Conflict, InvalidRequest, NotFound, ServiceError, StoreError
from bgeserve.filters import Filter
from bgeserve.stores.validation import check_collection_name
from bgeserve.types import Chunk, Embeddings, FindingLeg, Query
from bgeserve.vector_store import CollectionSchema, ScoredId


class Collection(Protocol):
    """The methods of `VectorStore` that are about one collection."""

    schema: CollectionSchema

    def drop(self) -> None: ...
    def upsert(self, chunks: Sequence[Chunk], embeddings: Embeddings) -> None: ...
    def delete(self, document_ids: Sequence[str]) -> int: ...
    def matching(self, filter: Filter) -> list[str]: ...
    def get(self, document_ids: Sequence[str]) -> list[Chunk]: ...
    def export(self, document_ids: Sequence[str]) -> tuple[list[Chunk], Embeddings]: ...
    def content_hashes(self, document_ids: Sequence[str]) -> dict[str, str]: ...
    def scroll(self, limit: int, after: str | None) -> tuple[list[str], str | None]: ...
    def search(self, leg: FindingLeg, query: Query, limit: int, filter: Filter | None) -> list[ScoredId]: ...
    def rescore(self, query: Query, keys: Sequence[str]) -> list[ScoredId]: ...
    def fetch(self, hits: Sequence[ScoredId]) -> list[Chunk]: ...
    def count(self) -> int: ...


C = TypeVar("C", bound=Collection)


class NamedCollections(ABC, Generic[C]):
    """Implements `VectorStore`, but for `flush` and `close`."""

    def __init__(self, language: str | None, quantization: str = "none") -> None:
        self._language = language
        self._quantization = quantization
        self._collections: dict[str, C] = {}
        self._aliases: Mapping[str, str] = {}

    @abstractmethod
    def _make(self, name: str, schema: CollectionSchema) -> C: ...

    @abstractmethod
    def _keep_alias(self, alias: str, collection: str | None) -> None:
        """Durably: what an alias names from now on; None: there is no such alias any more."""

    @abstractmethod
    def ensure_writable(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    @contextmanager
    def _opening(self, server: str) -> Generator[None]:
        """Whatever keeps this from opening, what is held is given back; a server that failed is a StoreError of `url`."""
        try:
            yield
        except ServiceError as error:
            self.close()
            raise StoreError(f"{server} cannot be used: {error.message}", field="url") from error
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
        if collection in self._aliases:
            raise Conflict(f"{collection!r} is an alias, of collection {self._aliases[collection]!r}", field="collection")
        self.ensure_writable()
        self._collections[collection] = self._make(collection, replace(schema, quantization=self._quantization))

    def drop(self, collection: str) -> None:
        if names := [alias for alias, named in self._aliases.items() if named == collection]:
            raise Conflict(f"collection {collection!r} is what alias {names[0]!r} names: point that elsewhere first", field="collection")
        self._collection(collection).drop()
        del self._collections[collection]

    def aliases(self) -> Mapping[str, str]:
        return self._aliases

    def set_alias(self, alias: str, collection: str) -> None:
        check_collection_name(alias, "an alias")
        if alias in self._collections:
            raise Conflict(f"{alias!r} is a collection: an alias needs a name of its own", field="alias")
        self._writable(collection)
        self._keep_alias(alias, collection)
        # A new mapping: whoever looks from another thread sees the old one or this one.
        self._aliases = {**self._aliases, alias: collection}

    def remove_alias(self, alias: str) -> None:
        if alias not in self._aliases:
            raise NotFound(f"there is no alias {alias!r}", field="alias")
        self._keep_alias(alias, None)
        self._aliases = {name: collection for name, collection in self._aliases.items() if name != alias}

    def upsert(self, collection: str, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        self._writable(collection).upsert(chunks, embeddings)

    def delete(self, collection: str, document_ids: Sequence[str]) -> int:
        return self._writable(collection).delete(document_ids)

    def matching(self, collection: str, filter: Filter) -> list[str]:
        return self._collection(collection).matching(filter)

    def get(self, collection: str, document_ids: Sequence[str]) -> list[Chunk]:
        return self._collection(collection).get(document_ids)

    def export(self, collection: str, document_ids: Sequence[str]) -> tuple[list[Chunk], Embeddings]:
        return self._collection(collection).export(document_ids)

    def content_hashes(self, collection: str, document_ids: Sequence[str]) -> dict[str, str]:
        return self._collection(collection).content_hashes(document_ids)

    def scroll(self, collection: str, limit: int, after: str | None) -> tuple[list[str], str | None]:
        return self._collection(collection).scroll(limit, after)

    def search(self, collection: str, leg: FindingLeg, query: Query, limit: int, filter: Filter | None) -> list[ScoredId]:
        return self._collection(collection).search(leg, query, limit, filter)

    def rescore(self, collection: str, query: Query, keys: Sequence[str]) -> list[ScoredId]:
        return self._collection(collection).rescore(query, keys)

    def fetch(self, collection: str, hits: Sequence[ScoredId]) -> list[Chunk]:
        return self._collection(collection).fetch(hits)

    def count(self, collection: str) -> int:
        return self._collection(collection).count()

    def copy(self, collection: str, name: str) -> str:
        self._collection(collection)
        raise InvalidRequest(
            "only Qdrant Edge copies one collection: use `bge-serve export`, or the database's own backups", field="collection"
        )

    def _require_same(self, name: str, schema: CollectionSchema) -> None:
        """Raises StoreError when a collection that was found was made with another language or quantization than the settings'."""
        for field, wanted, found in (
            ("language", self._language, schema.language),
            ("quantization", self._quantization, schema.quantization),
        ):
            if found != wanted:
                raise StoreError(
                    f"store.{field} is {wanted!r}, but collection {name!r} was indexed with {found!r}: set it back, or index anew",
                    field=field,
                )

    def _collection(self, name: str) -> C:
        if name not in self._collections:
            raise NotFound(f"there is no collection {name!r}", field="collection")
        return self._collections[name]

    def _writable(self, name: str) -> C:
        collection = self._collection(name)
        self.ensure_writable()
        return collection
