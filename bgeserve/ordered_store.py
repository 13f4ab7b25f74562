"""A vector store whose writes take effect in the order in which they were accepted, each in small steps.

Synchronous and without threads: every method is one step, between which others may run. Knows what a step must check and change together;
does not know when it runs, nor when what it wrote reaches the disk (`retrieval.py` does).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from bgeserve.errors import Conflict, InvalidRequest, NotFound
from bgeserve.filters import Filter
from bgeserve.fusion import Fused, Fusion, fuse
from bgeserve.outgrown import Outgrown
from bgeserve.splitting import select_embeddings
from bgeserve.stores.validation import check_collection_name, check_fingerprint, check_id, check_write, legs_of
from bgeserve.types import Chunk, CollectionInfo, EmbeddedChunks, Embeddings, Hit, Leg, Query
from bgeserve.vector_store import CollectionSchema, ScoredId, VectorStore
from bgeserve.write_order import WriteOrder

DEFAULT_COLLECTION = "default"
"""Is there, and empty, before its first write."""


class OrderedStore:
    """Owns `store` and the open writes of its collections. `language`: of the collections that it makes; `measured_documents`: above
    which one is warned of."""

    def __init__(self, store: VectorStore, language: str | None, measured_documents: int | None = None) -> None:
        self._store = store
        self._language = language
        self._outgrown = Outgrown(measured_documents)
        self._orders: dict[str, WriteOrder] = {}
        # What a killed owner had written but not synced is back from the log, and would be taken for durable.
        store.flush()

    def resolve(self, name: str) -> str:
        """The collection that an alias names; any other name is its own. No step: one look, which may be taken from any thread."""
        return self._store.aliases().get(name, name)

    def search(
        self,
        collection: str,
        query: Query,
        fingerprint: str | None,
        legs: Sequence[Leg],
        fusion: Fusion,
        candidates: int,
        limit: int,
        filter: Filter | None,
    ) -> list[Hit]:
        schema = self._existing(collection)
        if fingerprint is None and any(leg != "full_text" for leg in legs):
            raise InvalidRequest(f"legs {list(legs)} compare vectors: the fingerprint of the query's must be stated", field="fingerprint")
        if list(legs) == ["multi_vector"]:
            raise InvalidRequest("legs has only multi_vector, which ranks what other legs find: name one of them too", field="legs")
        if schema is None:
            return []
        if fingerprint is not None:
            check_fingerprint(schema, fingerprint)
        found: dict[Leg, list[ScoredId]] = {}
        for leg in legs:
            if leg != "multi_vector":
                found[leg] = self._store.search(collection, leg, query, candidates, filter)
        if "multi_vector" in legs:
            keys = list(dict.fromkeys(hit.key for hits in found.values() for hit in hits))
            found["multi_vector"] = self._store.rescore(collection, query, keys)
        scored: dict[Leg, list[tuple[str, float]]] = {leg: [(hit.key, hit.score) for hit in hits] for leg, hits in found.items()}
        by_key = {hit.key: hit for leg, hits in found.items() if leg != "multi_vector" for hit in hits}
        return self._best_chunks(collection, fuse(scored, fusion), by_key, limit)

    def _best_chunks(self, collection: str, fused: Sequence[Fused], by_key: Mapping[str, ScoredId], limit: int) -> list[Hit]:
        """The best chunk of each of the best documents."""
        hits: dict[str, Hit] = {}
        start = 0
        while len(hits) < limit and start < len(fused):
            # As many as are missing: more are needed only where a document was found by several of its chunks.
            some = fused[start : start + limit - len(hits)]
            for chunk, one in zip(self._store.fetch(collection, [by_key[each.key] for each in some]), some, strict=True):
                hits.setdefault(chunk.document_id, _hit(chunk, one))
            start += len(some)
        return list(hits.values())

    def begin_write(self, collection: str, fingerprint: str, ids: Sequence[str]) -> tuple[int, bool]:
        """Its sequence number, and whether there is no such collection yet."""
        check_collection_name(collection)
        for id in ids:
            check_id(id)
        self._store.ensure_writable()
        schema = self._store.schema(collection)
        if schema is not None:
            check_fingerprint(schema, fingerprint)
        return self._order(collection).begin(ids, time.monotonic()), schema is None

    def mark_unchanged(self, collection: str, sequence: int, content_hashes: Mapping[str, str]) -> set[str]:
        """Those of a write's documents that are stored already: it has taken effect on them."""
        if self._store.schema(collection) is None:
            return set()
        stored = self._store.content_hashes(collection, list(content_hashes))
        unchanged = {id for id, content_hash in content_hashes.items() if stored.get(id) == content_hash}
        self._order(collection).applied(sequence, unchanged)
        return unchanged

    def prepare(self, collection: str, sequence: int, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        """Check a whole write before any of it is applied, and make the collection that it begins."""
        left = self._order(collection).applicable(sequence, {chunk.document_id for chunk in chunks})
        existing = self._store.schema(collection)
        schema = existing or _schema_of(embeddings, self._language)
        check_write(schema, chunks, embeddings)
        if existing is None and left:
            self._store.create(collection, schema)

    def apply(self, collection: str, sequence: int, rows: Sequence[int], chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        """Store these rows of a prepared write, without the documents on which a newer one has taken effect."""
        order = self._order(collection)
        ids = order.applicable(sequence, {chunks[row].document_id for row in rows})
        kept = [row for row in rows if chunks[row].document_id in ids]
        if kept:
            self._store.upsert(collection, [chunks[row] for row in kept], select_embeddings(embeddings, kept))
        order.applied(sequence, ids)

    def create(self, collection: str, like: Embeddings) -> None:
        check_collection_name(collection)
        schema = self._store.schema(collection)
        if schema is None:
            self._store.create(collection, _schema_of(like, self._language))
        elif schema.fingerprint != like.fingerprint:
            raise Conflict(
                f"collection {collection!r} is there, for vectors of {schema.fingerprint}; asked for was one for {like.fingerprint}",
                field="collection",
            )

    def begin_delete(self, collection: str, ids: Sequence[str] | None, filter: Filter | None) -> tuple[int, list[str]]:
        """Its sequence number, and the documents that it is about: a filter selects among what is stored now."""
        schema = self._existing(collection)
        if filter is not None:
            ids = [] if schema is None else self._store.matching(collection, filter)
        found = list(dict.fromkeys(ids or ()))
        for id in found:
            check_id(id)
        return self._order(collection).begin(found, time.monotonic()), found

    def delete(self, collection: str, sequence: int, ids: Sequence[str]) -> int:
        order = self._order(collection)
        left = order.applicable(sequence, ids)
        deleted = 0 if self._existing(collection) is None else self._store.delete(collection, sorted(left))
        order.applied(sequence, left)
        return deleted

    def drop(self, collection: str) -> int:
        if collection not in self._orders:
            self._existing(collection)
        deleted = 0
        if self._store.schema(collection) is not None:
            deleted = self._store.count(collection)
            self._store.drop(collection)
        # Also of a collection that is only being made: its first write must not outlive this.
        self._order(collection).applied_to_all()
        self._forget_idle(collection)
        return deleted

    def end(self, collection: str, sequence: int) -> None:
        self._order(collection).end(sequence)
        self._forget_idle(collection)

    def get(self, collection: str, ids: Sequence[str]) -> list[Chunk]:
        return [] if self._existing(collection) is None else self._store.get(collection, ids)

    def scroll(self, collection: str, limit: int, after: str | None) -> tuple[list[Chunk], str | None]:
        if self._existing(collection) is None:
            return [], None
        ids, following = self._store.scroll(collection, limit, after)
        return self._store.get(collection, ids), following

    def export(self, collection: str, limit: int, after: str | None) -> tuple[EmbeddedChunks, str | None]:
        if self._existing(collection) is None:
            raise NotFound(f"collection {collection!r} holds nothing yet", field="collection")
        ids, following = self._store.scroll(collection, limit, after)
        return EmbeddedChunks(*self._store.export(collection, ids)), following

    def describe(self, collection: str) -> CollectionInfo:
        schema = self._existing(collection)
        state = "indexing" if self._order(collection).has_open_writes(time.monotonic()) else "ready"
        if schema is None:
            return CollectionInfo(collection, 0, None, state, ())
        count = self._store.count(collection)
        return CollectionInfo(
            collection,
            count,
            schema.fingerprint,
            state,
            legs_of(schema),
            aliases=sorted(alias for alias, named in self._store.aliases().items() if named == collection),
            warning=self._outgrown.warning(collection, count),
        )

    def collections(self) -> list[CollectionInfo]:
        named = {self.resolve(DEFAULT_COLLECTION), *self._store.collections()}
        return [self.describe(collection) for collection in sorted(named)]

    def aliases(self) -> dict[str, str]:
        return dict(self._store.aliases())

    def set_alias(self, alias: str, collection: str) -> str | None:
        order = self._orders.get(alias)
        if order is not None and order.has_open_writes(time.monotonic()):
            raise Conflict(f"{alias!r} is a collection that is being written: an alias needs a name of its own", field="alias")
        before = self._store.aliases().get(alias)
        self._store.set_alias(alias, collection)
        return before

    def remove_alias(self, alias: str) -> str:
        before = self._store.aliases().get(alias, "")
        self._store.remove_alias(alias)
        return before

    def copy(self, collection: str, name: str) -> str:
        """The exception among the methods: not a step of the one thread, but beside it, while no write runs."""
        if self._existing(collection) is None:
            raise NotFound(f"collection {collection!r} holds nothing yet", field="collection")
        return self._store.copy(collection, name)

    def flush(self) -> None:
        self._store.flush()

    def close(self) -> None:
        self._store.close()

    def _existing(self, collection: str) -> CollectionSchema | None:
        schema = self._store.schema(collection)
        if schema is None and collection != DEFAULT_COLLECTION:
            raise NotFound(f"there is no collection {collection!r}", field="collection")
        return schema

    def _order(self, collection: str) -> WriteOrder:
        return self._orders.setdefault(collection, WriteOrder())

    def _forget_idle(self, collection: str) -> None:
        """Of a collection that is not there, and that no open write will make, nothing has to be remembered."""
        if self._store.schema(collection) is None and not self._order(collection).has_open_writes(time.monotonic()):
            del self._orders[collection]


def _schema_of(embeddings: Embeddings, language: str | None) -> CollectionSchema:
    """Of the collection that these vectors begin: what it has, its writes must have."""
    dense, tokens = embeddings.dense, embeddings.multi_vector
    return CollectionSchema(
        embeddings.fingerprint,
        dimensions=None if dense is None else int(dense.shape[-1]),
        has_sparse=embeddings.sparse is not None,
        language=language,
        token_dimensions=int(tokens[0].shape[-1]) if tokens else None,
    )


def _hit(chunk: Chunk, fused: Fused) -> Hit:
    return Hit(
        id=chunk.document_id,
        text=chunk.text,
        score=fused.score,
        metadata=chunk.metadata,
        scores={**fused.scores, "fused": fused.score},
        ranks={**fused.ranks},
        chunk=chunk.n,
        start=chunk.start,
        end=chunk.end,
        title=chunk.title,
    )
