"""One collection of a Qdrant, embedded or remote: what chunks, writes and searches are to its points.

Knows no engine (`qdrant_shard.py` is what it asks of one), no owner, no order of writes and no threads: one caller at a time.
A document's chunk 0 is written last, and a document counts as stored when all its chunks carry one hash.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from bgeserve.filters import Filter
from bgeserve.max_sim import as_float16
from bgeserve.stores.batches import ENGINE_BATCH, batches, token_numbers
from bgeserve.stores.bm25 import Bm25Encoder, mean_tokens
from bgeserve.stores.documents import hashes_of_whole, in_order
from bgeserve.stores.exporting import StoredVectors, ascending, embeddings_of
from bgeserve.stores.keys import cursor
from bgeserve.stores.qdrant_filter import condition, number_paths
from bgeserve.stores.qdrant_points import INDEXED_FIELDS, chunk_of, first_chunks, of_documents, payload_of, point_id
from bgeserve.stores.qdrant_shard import Condition, Lexicon, Point, Shard, Sparse, Stored, Vector
from bgeserve.stores.ties import best_first, best_in_one_order
from bgeserve.stores.validation import check_query, check_write, legs_of, token_vectors_of
from bgeserve.types import Chunk, Embeddings, FindingLeg, Leg, Query, SparseVector, titled
from bgeserve.vector_store import CollectionSchema, ScoredId

S = TypeVar("S", bound=Shard)

MAX_NUMBER_INDEXES = 32
"""Metadata fields with an index for ranges; ranges over further fields are right but slow."""
STEADY_CHUNKS = 1024
"""From this size on the average length is kept: it has settled, and measuring would take too long."""


class QdrantCollection(Generic[S]):
    def __init__(self, shard: S, schema: CollectionSchema, lexicon: Lexicon, oversampling: float = 1) -> None:
        """`oversampling`: of a search of quantized vectors, if the collection has them."""
        self.shard = shard
        self.schema = schema
        self._oversampling = None if schema.quantization == "none" else oversampling
        self._lexicon = lexicon
        self._bm25 = Bm25Encoder(schema.language, lexicon.average_tokens)
        indexed = shard.indexed_fields()
        for field in sorted(INDEXED_FIELDS.keys() - indexed):
            shard.index_field(field, INDEXED_FIELDS[field])
        self._number_paths = indexed - INDEXED_FIELDS.keys()

    def drop(self) -> None:
        self.shard.drop()

    def upsert(self, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        check_write(self.schema, chunks, embeddings)
        self._index_numbers(chunks)
        rows = sorted(range(len(chunks)), key=lambda row: -chunks[row].n)
        for some in batches(rows, lambda row: token_numbers(embeddings, row)):
            self.shard.upsert([self._point(chunks[row], embeddings, row) for row in some])
        # Chunks that longer versions of these documents had beyond the present end.
        surplus = of_documents({chunk.document_id for chunk in chunks}, except_points=map(point_id, chunks))
        self._delete([point.id for point in self._points(surplus, False)])
        self._measure_when_due()

    def delete(self, document_ids: Sequence[str]) -> int:
        found = {point.id: point.payload["document"] for point in self._points(of_documents(document_ids), ["document"])}
        self._delete(found)
        return len(set(found.values()))

    def matching(self, filter: Filter) -> list[str]:
        return list({point.payload["id"]: None for point in self._points(condition(filter), ["id"])})

    def get(self, document_ids: Sequence[str]) -> list[Chunk]:
        return in_order(document_ids, (chunk_of(point.payload) for point in self._points(of_documents(document_ids), True)))

    def export(self, document_ids: Sequence[str]) -> tuple[list[Chunk], Embeddings]:
        chunks = self.get(document_ids)
        legs: list[Leg] = [leg for leg in legs_of(self.schema) if leg != "full_text"]
        found = {id: vectors for some in batches(map(point_id, chunks)) for id, vectors in self.shard.vectors(some, legs).items()}
        return chunks, embeddings_of(self.schema, [_stored_vectors(found[point_id(chunk)]) for chunk in chunks])

    def content_hashes(self, document_ids: Sequence[str]) -> dict[str, str]:
        found = (point.payload for point in self._points(of_documents(document_ids), ["id", "n", "hash"]))
        return hashes_of_whole((chunk["id"], chunk["n"], chunk["hash"]) for chunk in found)

    def scroll(self, limit: int, after: str | None) -> tuple[list[str], str | None]:
        points, following = self.shard.scroll(first_chunks(), ["id"], limit, cursor(after))
        return [point.payload["id"] for point in points], following

    def search(self, leg: FindingLeg, query: Query, limit: int, filter: Filter | None) -> list[ScoredId]:
        vector = self._query_vector(leg, query)
        if vector is None:
            return []
        where = None if filter is None else condition(filter)
        oversampling = self._oversampling if leg == "dense" else None
        # The engine gives equal scores in random order.
        return best_in_one_order(lambda count: self.shard.nearest(leg, vector, count, where, oversampling), limit)

    def rescore(self, query: Query, keys: Sequence[str]) -> list[ScoredId]:
        vectors = token_vectors_of(self.schema, query)
        these: Condition = {"must": [{"has_id": list(keys)}]}
        found = self.shard.nearest("multi_vector", as_float16(vectors), len(keys), these) if keys else ()
        # The engine's score is the sum over the query's vectors.
        return best_first(ScoredId(hit.key, hit.score / len(vectors)) for hit in found)

    def fetch(self, hits: Sequence[ScoredId]) -> list[Chunk]:
        found = {point.id: point for point in self.shard.retrieve([hit.key for hit in hits])}
        return [chunk_of(found[hit.key].payload) for hit in hits]

    def count(self) -> int:
        return self.shard.count(first_chunks())

    def _point(self, chunk: Chunk, embeddings: Embeddings, row: int) -> Point:
        vectors: dict[Leg, Vector] = {"full_text": self._words(titled(chunk.title, chunk.text))}
        if self.schema.dimensions is not None and embeddings.dense is not None:
            vectors["dense"] = embeddings.dense[row].tolist()
        if self.schema.has_sparse and embeddings.sparse is not None:
            vectors["sparse"] = _sparse(embeddings.sparse[row])
        if self.schema.token_dimensions is not None and embeddings.multi_vector is not None:
            vectors["multi_vector"] = as_float16(embeddings.multi_vector[row])
        # A text without words has no entry, rather than an empty one, in an index of words.
        present: dict[Leg, Vector] = {leg: vector for leg, vector in vectors.items() if not isinstance(vector, Sparse) or vector.indices}
        return Point(point_id(chunk), present, payload_of(chunk))

    def _words(self, text: str) -> Sparse:
        encoded = self._bm25.document(text)
        return Sparse(encoded.indices, encoded.values)

    def _query_vector(self, leg: FindingLeg, query: Query) -> Vector | None:
        """None: nothing can be found by it."""
        check_query(self.schema, leg, query)
        if leg == "dense":
            return None if query.dense is None else query.dense.tolist()
        if leg == "sparse" and query.sparse is not None:
            sparse = _sparse(query.sparse)
        else:
            encoded = self._bm25.query(query.text)
            sparse = Sparse(encoded.indices, encoded.values)
        return sparse if sparse.indices else None

    def _index_numbers(self, chunks: Iterable[Chunk]) -> None:
        paths = {path for chunk in chunks for path in number_paths(chunk.metadata)}
        for path in sorted(paths - self._number_paths)[: MAX_NUMBER_INDEXES - len(self._number_paths)]:
            self.shard.index_field(path, "float")
            self._number_paths.add(path)

    def _measure_when_due(self) -> None:
        """Measure BM25's average length anew each time the collection has doubled, until it is steady; no vector of a model is touched.

        The lexicon is saved after the vectors are: an owner killed in between left the old one, and the next write measures again.
        """
        if self._lexicon.measured_chunks >= STEADY_CHUNKS:
            return
        chunks = self.shard.count(None)
        if chunks < max(1, 2 * self._lexicon.measured_chunks):
            return
        texts = (_titled(point) for point in self._points(None, ["title", "text"]))
        self._lexicon = Lexicon(mean_tokens(self.schema.language, texts), chunks)
        self._bm25 = Bm25Encoder(self.schema.language, self._lexicon.average_tokens)
        for points in batches(self._points(None, ["title", "text"])):
            vectors = {point.id: self._words(_titled(point)) for point in points}
            self.shard.update_full_text({id: vector for id, vector in vectors.items() if vector.indices})
        self.shard.save(self.schema, self._lexicon)

    def _points(self, where: Condition | None, fields: bool | list[str]) -> Generator[Stored]:
        offset: str | None = None
        while True:
            points, offset = self.shard.scroll(where, fields, 4 * ENGINE_BATCH, offset)
            yield from points
            if offset is None:
                return

    def _delete(self, points: Iterable[str]) -> None:
        for some in batches(points):
            self.shard.delete(some)


def _titled(point: Stored) -> str:
    return titled(point.payload["title"], point.payload["text"])


def _stored_vectors(found: Mapping[Leg, Vector]) -> StoredVectors:
    dense, sparse, tokens = found.get("dense"), found.get("sparse"), found.get("multi_vector")
    return StoredVectors(
        dense if isinstance(dense, list) else None,
        ascending(*sparse) if isinstance(sparse, Sparse) else None,
        tokens if isinstance(tokens, np.ndarray) else None,
    )


def _sparse(vector: SparseVector) -> Sparse:
    return Sparse(vector.indices.tolist(), vector.values.tolist())
