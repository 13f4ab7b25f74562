"""One collection: a folder with a Qdrant Edge shard, and beside it `schema.json`, which makes the folder a collection.

Knows the engine and its traps (named where they are met). Knows no owner, no order of writes and no threads: one caller at a time.
A document's chunk 0 is written last, and a document counts as stored when all its chunks carry one hash.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import qdrant_edge as qdrant

from bgeserve.errors import ServiceError, StoreError
from bgeserve.filters import Filter
from bgeserve.stores.bm25 import Bm25Encoder, mean_tokens
from bgeserve.stores.folder import sync_folder, write_json
from bgeserve.stores.qdrant_filter import condition, number_paths
from bgeserve.stores.qdrant_points import INDEXED_FIELDS, chunk_of, cursor, first_chunks, of_documents, payload, payload_of, point_id
from bgeserve.stores.validation import check_query, check_write
from bgeserve.types import Chunk, Embeddings, Leg, Query, SparseVector
from bgeserve.vector_store import CollectionSchema, ScoredId

P = ParamSpec("P")
T = TypeVar("T")

ENGINE_BATCH = 64
"""Points per engine call, each of which holds the interpreter's lock."""
MAX_TIED = 4096
"""Equal scores around the last place that are put in order; among more than this the engine's choice stands."""
MAX_NUMBER_INDEXES = 32
"""Metadata fields with an index for ranges; ranges over further fields are right but slow."""
STEADY_CHUNKS = 1024
"""From this size on the average length is kept: it has settled, and measuring would take too long."""

_SCHEMA = "schema.json"
_SHARD = "shard"


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What BM25 knows of the collection: mean tokens per chunk, measured when it had so many chunks (0: not yet)."""

    average_tokens: float = 1.0
    measured_chunks: int = 0


class QdrantCollection:
    def __init__(self, folder: Path, schema: CollectionSchema, lexicon: Lexicon, shard: qdrant.EdgeShard) -> None:
        self._folder = folder
        self.schema = schema
        self._lexicon = lexicon
        self._bm25 = Bm25Encoder(schema.language, lexicon.average_tokens)
        self._shard = shard
        # What a killed owner had applied comes back from the log, but is on disk for good only after a flush.
        self._dirty = True
        self._number_paths = set(shard.info().payload_schema) - set(INDEXED_FIELDS)

    @classmethod
    def create(cls, folder: Path, schema: CollectionSchema) -> QdrantCollection:
        # Without a schema, what lies there is what a kill left of an earlier attempt.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shard = qdrant.EdgeShard.create(str(folder / _SHARD), _engine_config(schema))
        for field, kind in INDEXED_FIELDS.items():
            shard.update(qdrant.UpdateOperation.create_field_index(field, kind))
        collection = cls(folder, schema, Lexicon(), shard)
        collection.flush()
        for made in (*(path for path in folder.rglob("*") if path.is_dir()), folder, folder.parent):
            sync_folder(made)
        collection._save()
        return collection

    @classmethod
    def open(cls, folder: Path) -> QdrantCollection:
        """Raises StoreError when what lies there cannot be opened."""
        try:
            saved = json.loads((folder / _SCHEMA).read_text())
            schema, lexicon = CollectionSchema(**saved["schema"]), Lexicon(**saved["lexicon"])
            shard = qdrant.EdgeShard.load(str(folder / _SHARD))
        except Exception as error:
            raise StoreError(f"collection {folder.name!r} in {folder} cannot be opened: {error}", field="path") from error
        return cls(folder, schema, lexicon, shard)

    @staticmethod
    def exists(folder: Path) -> bool:
        return (folder / _SCHEMA).exists()

    def drop(self) -> None:
        self.close()
        (self._folder / _SCHEMA).unlink()
        sync_folder(self._folder)
        shutil.rmtree(self._folder)

    def upsert(self, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        check_write(self.schema, chunks, embeddings)
        self._index_numbers(chunks)
        rows = sorted(range(len(chunks)), key=lambda row: -chunks[row].n)
        for some in _batches(rows):
            self._update(qdrant.UpdateOperation.upsert_points([self._point(chunks[row], embeddings, row) for row in some]))
        # Chunks that longer versions of these documents had beyond the present end.
        surplus = of_documents({chunk.document_id for chunk in chunks}, except_points=map(point_id, chunks))
        self._delete([point.id for point in self._points(surplus, False)])
        self._measure_when_due()

    def delete(self, document_ids: Sequence[str]) -> int:
        found = {point.id: payload(point)["document"] for point in self._points(of_documents(document_ids), ["document"])}
        self._delete(found)
        return len(set(found.values()))

    def matching(self, filter: Filter) -> list[str]:
        return list({payload(point)["id"]: None for point in self._points(condition(filter), ["id"])})

    def get(self, document_ids: Sequence[str]) -> list[Chunk]:
        place = {id: i for i, id in enumerate(document_ids)}
        found = [chunk_of(point) for point in self._points(of_documents(document_ids), True)]
        return sorted(found, key=lambda chunk: (place[chunk.document_id], chunk.n))

    def content_hashes(self, document_ids: Sequence[str]) -> dict[str, str]:
        stored: dict[str, dict[int, str]] = {}
        for point in self._points(of_documents(document_ids), ["id", "n", "hash"]):
            chunk = payload(point)
            stored.setdefault(chunk["id"], {})[chunk["n"]] = chunk["hash"]
        return {id: hashes[0] for id, hashes in stored.items() if 0 in hashes and len(set(hashes.values())) == 1}

    def scroll(self, limit: int, after: str | None) -> tuple[list[str], str | None]:
        request = qdrant.ScrollRequest(offset=cursor(after), limit=limit, filter=first_chunks(), with_payload=["id"], with_vector=False)
        points, following = self._call(self._shard.scroll, request)
        return [payload(point)["id"] for point in points], None if following is None else str(following)

    def search(self, leg: Leg, query: Query, limit: int, filter: Filter | None) -> list[ScoredId]:
        vector = self._query_vector(leg, query)
        if vector is None:
            return []
        nearest = qdrant.Query.Nearest(vector, using=leg)
        where = None if filter is None else condition(filter)
        fetch = limit + 16
        while True:
            request = qdrant.QueryRequest(limit=fetch, query=nearest, filter=where, with_payload=False, with_vector=False)
            found = self._call(self._shard.query, request)
            # The engine gives equal scores in random order: all that tie with the last place must be seen before they are cut.
            if len(found) < fetch or found[-1].score < found[limit - 1].score or fetch >= limit + MAX_TIED:
                break
            fetch = min(4 * fetch, limit + MAX_TIED)
        return sorted((ScoredId(str(point.id), point.score) for point in found), key=lambda hit: (-hit.score, hit.key))[:limit]

    def fetch(self, keys: Sequence[str]) -> list[Chunk]:
        found = {str(point.id): point for point in self._call(self._shard.retrieve, list(keys), True, False)}
        return [chunk_of(found[key]) for key in keys]

    def count(self) -> int:
        return self._call(self._shard.count, qdrant.CountRequest(exact=True, filter=first_chunks()))

    def flush(self) -> None:
        if self._dirty:
            self._call(self._shard.flush)
            self._dirty = False

    def close(self) -> None:
        self._call(self._shard.close)

    def _point(self, chunk: Chunk, embeddings: Embeddings, row: int) -> qdrant.Point:
        vectors: dict[str, Any] = {"full_text": self._bm25.document(chunk.text)}
        if self.schema.dimensions is not None and embeddings.dense is not None:
            vectors["dense"] = embeddings.dense[row].tolist()
        if self.schema.has_sparse and embeddings.sparse is not None:
            vectors["sparse"] = _engine_sparse(embeddings.sparse[row])
        # A text without words has no entry, rather than an empty one, in an index of words.
        present = {name: vector for name, vector in vectors.items() if not isinstance(vector, qdrant.SparseVector) or vector.indices}
        return qdrant.Point(point_id(chunk), present, payload_of(chunk))

    def _query_vector(self, leg: Leg, query: Query) -> Any:
        """None: nothing can be found by it."""
        check_query(self.schema, leg, query)
        if leg == "dense":
            return None if query.dense is None else query.dense.tolist()
        sparse = _engine_sparse(query.sparse) if leg == "sparse" and query.sparse is not None else self._bm25.query(query.text)
        return sparse if sparse.indices else None

    def _index_numbers(self, chunks: Iterable[Chunk]) -> None:
        paths = {path for chunk in chunks for path in number_paths(chunk.metadata)}
        for path in sorted(paths - self._number_paths)[: MAX_NUMBER_INDEXES - len(self._number_paths)]:
            self._update(qdrant.UpdateOperation.create_field_index(path, qdrant.PayloadSchemaType.Float))
            self._number_paths.add(path)

    def _measure_when_due(self) -> None:
        """Measure BM25's average length anew each time the collection has doubled, until it is steady; no vector of a model is touched.

        The lexicon is saved after the vectors are on disk: an owner killed in between left the old one, and the next write measures again.
        """
        if self._lexicon.measured_chunks >= STEADY_CHUNKS:
            return
        chunks = self._call(self._shard.count, qdrant.CountRequest(exact=True))
        if chunks < max(1, 2 * self._lexicon.measured_chunks):
            return
        texts = (payload(point)["text"] for point in self._points(None, ["text"]))
        self._lexicon = Lexicon(mean_tokens(self.schema.language, texts), chunks)
        self._bm25 = Bm25Encoder(self.schema.language, self._lexicon.average_tokens)
        for points in _batches(self._points(None, ["text"])):
            encoded = [(point.id, self._bm25.document(payload(point)["text"])) for point in points]
            vectors = [qdrant.PointVectors(id, {"full_text": vector}) for id, vector in encoded if vector.indices]
            self._update(qdrant.UpdateOperation.update_vectors(vectors))
        self.flush()
        self._save()

    def _save(self) -> None:
        write_json(self._folder / _SCHEMA, {"schema": asdict(self.schema), "lexicon": asdict(self._lexicon)})

    def _points(self, where: qdrant.Filter | None, fields: bool | list[str]) -> Generator[qdrant.Record]:
        offset: qdrant.PointId | None = None
        while True:
            request = qdrant.ScrollRequest(offset=offset, limit=4 * ENGINE_BATCH, filter=where, with_payload=fields, with_vector=False)
            points, offset = self._call(self._shard.scroll, request)
            yield from points
            if offset is None:
                return

    def _delete(self, points: Iterable[qdrant.PointId]) -> None:
        for some in _batches(points):
            self._update(qdrant.UpdateOperation.delete_points(some))

    def _update(self, operation: qdrant.UpdateOperation) -> None:
        self._dirty = True
        self._call(self._shard.update, operation)

    def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # the engine raises nothing more specific
            raise ServiceError(f"collection {self._folder.name!r}: Qdrant Edge failed: {error}") from error


def _engine_config(schema: CollectionSchema) -> qdrant.EdgeConfig:
    dense = None if schema.dimensions is None else qdrant.EdgeVectorParams(size=schema.dimensions, distance=qdrant.Distance.Cosine)
    sparse = {"full_text": qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf)}
    if schema.has_sparse:
        sparse["sparse"] = qdrant.EdgeSparseVectorParams()
    # More threads were measured to make no query faster.
    return qdrant.EdgeConfig(vectors=None if dense is None else {"dense": dense}, sparse_vectors=sparse, max_search_threads=1)


def _engine_sparse(vector: SparseVector) -> qdrant.SparseVector:
    return qdrant.SparseVector(vector.indices.tolist(), vector.values.tolist())


def _batches(items: Iterable[T]) -> Generator[list[T]]:
    iterator = iter(items)
    while some := list(islice(iterator, ENGINE_BATCH)):
        yield some
