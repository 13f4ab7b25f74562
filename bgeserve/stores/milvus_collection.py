"""One collection of a Milvus: the same calls for Lite, a server, a cluster and Zilliz. Knows no owner, no folder and no connection.

Every write goes through one client, so that its session consistency is enough to read what it wrote. A document's chunk 0 is written last,
and a document counts as stored when all its chunks carry one hash.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from pymilvus import MilvusClient

from bgeserve.filters import Filter
from bgeserve.max_sim import max_sim
from bgeserve.stores.batches import batches
from bgeserve.stores.bm25 import WordSplitter
from bgeserve.stores.documents import hashes_of_whole, in_order
from bgeserve.stores.exporting import embeddings_of
from bgeserve.stores.keys import chunk_key, cursor, document_key
from bgeserve.stores.milvus_engine import Engine, call
from bgeserve.stores.milvus_filter import EVERYTHING, all_parts, any_of, expression
from bgeserve.stores.milvus_rows import (
    MAX_TERMS,
    STORED,
    chunk_of,
    document_id_of,
    engine_sparse,
    milvus_schema,
    rows_of,
    stored_vectors,
    token_numbers,
    tokens_of,
)
from bgeserve.stores.redo_file import RedoFile, UnderWay
from bgeserve.stores.ties import best_first, best_in_one_order
from bgeserve.stores.token_file import TokenFile
from bgeserve.stores.validation import check_query, check_write, legs_of, token_vectors_of
from bgeserve.types import Chunk, Embeddings, FindingLeg, Float16Array, Query
from bgeserve.vector_store import CollectionSchema, ScoredId

T = TypeVar("T")

PAGE = 1024

_FIRST_CHUNKS = "n == 0"
_LEAST_SCORE = 1e-20
"""Below it a score is of nothing but what stands in for an empty vector."""


class MilvusCollection:
    def __init__(self, client: MilvusClient, engine: Engine, stored_as: str, name: str, schema: CollectionSchema) -> None:
        """Open what is there. `stored_as`: its name in Milvus."""
        self._client = client
        self._engine = engine
        self._stored_as = stored_as
        self._name = name
        self.schema = schema
        self._splitter = WordSplitter(schema.language)
        self._make_searchable()
        # Lite fails on reading what never had a row.
        self._has_rows = self._count(EVERYTHING) > 0
        self._most_terms = None if engine.has_not else self._measure_terms()
        self._tokens: TokenFile | None = None
        self._redo: RedoFile | None = None
        if engine.folder is not None:
            if schema.token_dimensions is not None:
                self._tokens = TokenFile(engine.folder / f"{stored_as}.token_vectors", schema.token_dimensions)
            self._redo = RedoFile(engine.folder / f"{stored_as}.redo", self._apply)
            self._redo.finish()

    @classmethod
    def create(
        cls, client: MilvusClient, engine: Engine, stored_as: str, name: str, schema: CollectionSchema, description: str
    ) -> MilvusCollection:
        rows = milvus_schema(schema, description, tokens_in_rows=engine.folder is None)
        call(name, client.create_collection, stored_as, schema=rows, consistency_level="Session", timeout=engine.timeout_s)
        return cls(client, engine, stored_as, name, schema)

    def drop(self) -> None:
        self._call(self._client.drop_collection, self._stored_as)
        if self._tokens is not None:
            self._tokens.drop()
        if self._redo is not None:
            self._redo.drop()

    def close(self) -> None:
        if self._tokens is not None:
            self._tokens.close()

    def upsert(self, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        check_write(self.schema, chunks, embeddings)
        rows = rows_of(chunks, embeddings, self.schema, self._splitter, tokens_in_rows=self._tokens is None)
        if self._tokens is not None and embeddings.multi_vector is not None:
            hashes = {chunk_key(chunk): chunk.content_hash for chunk in chunks}
            vectors = [found.astype(np.float16) for found in embeddings.multi_vector]
            self._tokens.put(dict(zip(hashes.items(), vectors, strict=True)))
        self._write(UnderWay(rows, []))

    def delete(self, document_ids: Sequence[str]) -> int:
        found = {row["key"]: row["document"] for row in self._of_documents(map(document_key, document_ids), ["document"])}
        self._write(UnderWay([], list(found)))
        return len(set(found.values()))

    def matching(self, filter: Filter) -> list[str]:
        rows = self._rows(expression(filter, self._most_terms), ["record"])
        return list({document_id_of(row): None for row in rows})

    def get(self, document_ids: Sequence[str]) -> list[Chunk]:
        return in_order(document_ids, map(chunk_of, self._of_documents(map(document_key, document_ids), STORED)))

    def export(self, document_ids: Sequence[str]) -> tuple[list[Chunk], Embeddings]:
        chunks = self.get(document_ids)
        keys = list(map(chunk_key, chunks))
        fields = [leg for leg in legs_of(self.schema) if leg in ("dense", "sparse")]
        rows = {row["key"]: row for some in batches(keys) for row in self._page(any_of("key", some), len(some), fields)}
        tokens = {} if self.schema.token_dimensions is None else self._token_vectors(keys)
        return chunks, embeddings_of(self.schema, [stored_vectors(rows[key], tokens.get(key)) for key in keys])

    def content_hashes(self, document_ids: Sequence[str]) -> dict[str, str]:
        return hashes_of_whole((chunk.document_id, chunk.n, chunk.content_hash) for chunk in self.get(document_ids))

    def scroll(self, limit: int, after: str | None) -> tuple[list[str], str | None]:
        # A cursor is where the next page begins; one more than the page is what it takes to know that there is one.
        start = cursor(after)
        rows = self._page(_FIRST_CHUNKS if start is None else all_parts([_FIRST_CHUNKS, f'key >= "{start}"']), limit + 1, ["record"])
        return [document_id_of(row) for row in rows[:limit]], rows[limit]["key"] if len(rows) > limit else None

    def search(self, leg: FindingLeg, query: Query, limit: int, filter: Filter | None) -> list[ScoredId]:
        vector = self._query_vector(leg, query)
        if not self._has_rows or vector is None:
            return []
        where = "" if filter is None else expression(filter, self._most_terms)

        def best(count: int) -> list[ScoredId]:
            # With their texts: to look ten up by their keys, Lite goes through all rows.
            search = self._client.search
            answer = self._call(search, self._stored_as, [vector], filter=where, limit=count, anns_field=leg, output_fields=STORED)
            # A hit has its id as an attribute; as an item it is called as the field is, or not, as the server likes.
            found = cast("list[Any]", answer[0])
            scored = [ScoredId(hit.id, hit.distance, hit["entity"]) for hit in found]
            return scored if leg == "dense" else [hit for hit in scored if hit.score > _LEAST_SCORE]

        return best_in_one_order(best, limit)

    def rescore(self, query: Query, keys: Sequence[str]) -> list[ScoredId]:
        vectors = token_vectors_of(self.schema, query)
        found = self._token_vectors(keys)
        scores = max_sim(vectors, list(found.values())).tolist()
        return best_first(map(ScoredId, found, scores))

    def fetch(self, hits: Sequence[ScoredId]) -> list[Chunk]:
        found = self._of_keys([hit.key for hit in hits if hit.row is None])
        return [chunk_of(found[hit.key] if hit.row is None else hit.row) for hit in hits]

    def count(self) -> int:
        return self._count(_FIRST_CHUNKS)

    def _token_vectors(self, keys: Sequence[str]) -> dict[str, Float16Array]:
        """Of the chunks that are there."""
        if self._tokens is not None:
            return self._tokens.read(keys, self._hashes)
        dimensions = self.schema.token_dimensions or 0
        pages = (self._page(any_of("key", some), len(some), ["multi_vector"]) for some in batches(keys))
        return {row["key"]: tokens_of(row, dimensions) for page in pages for row in page}

    def _hashes(self, keys: Sequence[str]) -> dict[str, str]:
        return {key: chunk_of(row).content_hash for key, row in self._of_keys(keys).items()}

    def _of_keys(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        return {row["key"]: row for some in batches(keys) for row in self._page(any_of("key", some), len(some), STORED)}

    def _query_vector(self, leg: FindingLeg, query: Query) -> Any:
        """None: nothing can be found by it."""
        check_query(self.schema, leg, query)
        if leg == "dense":
            return None if query.dense is None else query.dense.tolist()
        if leg == "sparse":
            return (query.sparse and engine_sparse(query.sparse)) or None
        # A query's words count once, as in the other stores.
        return " ".join(dict.fromkeys(self._splitter.words(query.text))) or None

    def _make_searchable(self) -> None:
        """What a creation that was killed may have left undone: indexes, and loading, without which nothing is found."""
        indexes = MilvusClient.prepare_index_params()
        present = set(self._call(self._client.list_indexes, self._stored_as))
        wanted = {"full_text": ("SPARSE_INVERTED_INDEX", "BM25")}
        if self.schema.dimensions is not None:
            wanted["dense"] = (self._engine.dense_index, "COSINE")
        if self.schema.has_sparse:
            wanted["sparse"] = ("SPARSE_INVERTED_INDEX", "IP")
        for field, (kind, metric) in wanted.items():
            if field not in present:
                indexes.add_index(field, kind, field, metric_type=metric)
        if len(indexes):
            # Loading waits for them; waiting here takes half a second for each.
            self._call(self._client.create_index, self._stored_as, indexes, sync=False)
        # Without a limit of time: Lite reads all rows into memory, 8,000 a second.
        call(self._name, self._client.load_collection, self._stored_as)

    def _measure_terms(self) -> int:
        """The most keywords that any row has, by bisection."""
        low, high = 0, MAX_TERMS if self._has_rows else 0
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._count(f'terms[{middle}] >= ""') else (low, middle)
        return low

    def _of_documents(self, document_keys: Iterable[str], fields: list[str]) -> Generator[dict[str, Any]]:
        for some in batches(sorted(set(document_keys))):
            yield from self._rows(any_of("document", some), fields)

    def _rows(self, where: str, fields: list[str]) -> Generator[dict[str, Any]]:
        after = ""
        while True:
            page = self._page(all_parts([where, f'key > "{after}"']), PAGE, fields)
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1]["key"]

    def _page(self, where: str, limit: int, fields: list[str]) -> list[dict[str, Any]]:
        """The first rows in the order of their keys: a server gives any, unless it is told not to stop at the first it finds."""
        if not self._has_rows:
            return []
        query = self._client.query
        return list(self._call(query, self._stored_as, where, ["key", *fields], limit=limit, reduce_stop_for_best=True))

    def _count(self, where: str) -> int:
        return self._call(self._client.query, self._stored_as, where, ["count(*)"])[0]["count(*)"]

    def _write(self, write: UnderWay) -> None:
        if self._redo is None:
            self._apply(write)
        else:
            self._redo.do(write)

    def _apply(self, write: UnderWay) -> None:
        for some in batches(sorted(write.rows, key=lambda row: -row["n"]), token_numbers):
            # A row counts from before it is there: a filter that looks too far is right all the same.
            self._has_rows = True
            if self._most_terms is not None:
                self._most_terms = max(self._most_terms, *(len(row["terms"]) for row in some))
            self._call(self._client.upsert, self._stored_as, some)
        # Chunks that longer versions of these documents had beyond the present end.
        keys = {row["key"] for row in write.rows}
        present = self._of_documents((row["document"] for row in write.rows), [])
        self._delete([*write.gone, *(row["key"] for row in present if row["key"] not in keys)])
        if self._tokens is not None:
            self._tokens.drop_other_versions((row["key"], chunk_of(row).content_hash) for row in write.rows)

    def _delete(self, keys: Iterable[str]) -> None:
        for some in batches(keys):
            self._call(self._client.delete, self._stored_as, ids=some)
            if self._tokens is not None:
                self._tokens.delete(some)

    def _call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return call(self._name, function, *args, timeout=self._engine.timeout_s, **kwargs)
