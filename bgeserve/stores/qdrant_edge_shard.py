"""A collection's folder: a Qdrant Edge shard, and beside it `schema.json`, which makes the folder a collection.

Knows the engine and its traps (named where they are met), not chunks or queries.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import qdrant_edge as qdrant

from bgeserve.errors import ServiceError, StoreError
from bgeserve.stores.folder import sync_folder, write_json
from bgeserve.stores.qdrant_shard import Condition, Lexicon, Point, Sparse, Stored, Vector
from bgeserve.types import Leg
from bgeserve.vector_store import CollectionSchema, ScoredId

P = ParamSpec("P")
T = TypeVar("T")

_SCHEMA = "schema.json"
_SHARD = "shard"
_INDEX_KINDS = {
    "keyword": qdrant.PayloadSchemaType.Keyword,
    "integer": qdrant.PayloadSchemaType.Integer,
    "float": qdrant.PayloadSchemaType.Float,
}
_QUANTIZATIONS = {
    "none": None,
    # Not of int8: without `optimize`, which is not called (see `max_search_threads`), the engine leaves such vectors as they are.
    "turbo": qdrant.TurboQuantQuantizationConfig(bits=qdrant.TurboQuantBitSize.Bits8),
    "binary": qdrant.BinaryQuantizationConfig(),
}


class EdgeShard:
    """Implements `Shard`; `flush` is what makes writes survive a power cut."""

    def __init__(self, folder: Path, shard: qdrant.EdgeShard) -> None:
        self._folder = folder
        self._shard = shard
        # What a killed owner had applied comes back from the log, but is on disk for good only after a flush.
        self._dirty = True

    @classmethod
    def create(cls, folder: Path, schema: CollectionSchema) -> EdgeShard:
        # Without a schema, what lies there is what a kill left of an earlier attempt.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return cls(folder, qdrant.EdgeShard.create(str(folder / _SHARD), _engine_config(schema)))

    def seal(self, schema: CollectionSchema) -> None:
        """Make what was created a collection that is there after a power cut."""
        self.flush()
        for made in (*(path for path in self._folder.rglob("*") if path.is_dir()), self._folder, self._folder.parent):
            sync_folder(made)
        self.save(schema, Lexicon())

    @classmethod
    def open(cls, folder: Path) -> tuple[EdgeShard, CollectionSchema, Lexicon]:
        """Raises StoreError when what lies there cannot be opened."""
        try:
            saved = json.loads((folder / _SCHEMA).read_text())
            schema, lexicon = CollectionSchema(**saved["schema"]), Lexicon(**saved["lexicon"])
            return cls(folder, qdrant.EdgeShard.load(str(folder / _SHARD))), schema, lexicon
        except Exception as error:
            raise StoreError(f"collection {folder.name!r} in {folder} cannot be opened: {error}", field="path") from error

    @staticmethod
    def exists(folder: Path) -> bool:
        return (folder / _SCHEMA).exists()

    def drop(self) -> None:
        self.close()
        (self._folder / _SCHEMA).unlink()
        sync_folder(self._folder)
        shutil.rmtree(self._folder)

    def upsert(self, points: Sequence[Point]) -> None:
        self._update(qdrant.UpdateOperation.upsert_points([_engine_point(point) for point in points]))

    def update_full_text(self, vectors: Mapping[str, Sparse]) -> None:
        changed = [qdrant.PointVectors(id, {"full_text": _engine_vector(vector)}) for id, vector in vectors.items()]
        self._update(qdrant.UpdateOperation.update_vectors(changed))

    def delete(self, ids: Sequence[str]) -> None:
        self._update(qdrant.UpdateOperation.delete_points(list(ids)))

    def scroll(
        self, where: Condition | None, fields: bool | Sequence[str], limit: int, offset: str | None
    ) -> tuple[list[Stored], str | None]:
        wanted = fields if isinstance(fields, bool) else list(fields)
        request = qdrant.ScrollRequest(offset=offset, limit=limit, filter=_engine_filter(where), with_payload=wanted, with_vector=False)
        points, following = self._call(self._shard.scroll, request)
        return [_stored(point) for point in points], None if following is None else str(following)

    def nearest(self, leg: Leg, vector: Vector, limit: int, where: Condition | None, oversampling: float | None = None) -> list[ScoredId]:
        quantization = None if oversampling is None else qdrant.QuantizationSearchParams(rescore=True, oversampling=oversampling)
        request = qdrant.QueryRequest(
            limit=limit,
            query=qdrant.Query.Nearest(_engine_vector(vector), using=leg),
            filter=_engine_filter(where),
            with_payload=False,
            with_vector=False,
            params=None if quantization is None else qdrant.SearchParams(quantization=quantization),
        )
        return [ScoredId(str(point.id), point.score) for point in self._call(self._shard.query, request)]

    def vectors(self, ids: Sequence[str], legs: Sequence[Leg]) -> Mapping[str, Mapping[Leg, Vector]]:
        points = self._call(self._shard.retrieve, list(ids), False, list[str](legs))
        return {str(point.id): {leg: _vector(found) for leg, found in _named(point).items()} for point in points}

    def retrieve(self, ids: Sequence[str]) -> list[Stored]:
        return [_stored(point) for point in self._call(self._shard.retrieve, list(ids), True, False)]

    def count(self, where: Condition | None) -> int:
        return self._call(self._shard.count, qdrant.CountRequest(exact=True, filter=_engine_filter(where)))

    def indexed_fields(self) -> set[str]:
        return set(self._shard.info().payload_schema)

    def index_field(self, field: str, kind: str) -> None:
        self._update(qdrant.UpdateOperation.create_field_index(field, _INDEX_KINDS[kind]))

    def save(self, schema: CollectionSchema, lexicon: Lexicon) -> None:
        self.flush()
        write_json(self._folder / _SCHEMA, {"schema": asdict(schema), "lexicon": asdict(lexicon)})

    def flush(self) -> None:
        if self._dirty:
            self._call(self._shard.flush)
            self._dirty = False

    def close(self) -> None:
        self._call(self._shard.close)

    def _update(self, operation: qdrant.UpdateOperation) -> None:
        self._dirty = True
        self._call(self._shard.update, operation)

    def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # the engine raises nothing more specific
            raise ServiceError(f"collection {self._folder.name!r}: Qdrant Edge failed: {error}") from error


def _engine_config(schema: CollectionSchema) -> qdrant.EdgeConfig:
    vectors: dict[str, qdrant.EdgeVectorParams] = {}
    if schema.dimensions is not None:
        quantization = _QUANTIZATIONS[schema.quantization]
        vectors["dense"] = qdrant.EdgeVectorParams(schema.dimensions, qdrant.Distance.Cosine, quantization_config=quantization)
    if schema.token_dimensions is not None:
        vectors["multi_vector"] = _token_vector_params(schema.token_dimensions)
    sparse = {"full_text": qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf)}
    if schema.has_sparse:
        sparse["sparse"] = qdrant.EdgeSparseVectorParams()
    # More threads were measured to make no query faster.
    return qdrant.EdgeConfig(vectors=vectors or None, sparse_vectors=sparse, max_search_threads=1)


def _token_vector_params(dimensions: int) -> qdrant.EdgeVectorParams:
    """On disk, and without an index: they are only compared with what the other legs found. By inner product, since for cosines the engine
    would scale them to length 1 once more, and give back others than it was given."""
    return qdrant.EdgeVectorParams(
        size=dimensions,
        distance=qdrant.Distance.Dot,
        datatype=qdrant.VectorStorageDatatype.Float16,
        memory=qdrant.Memory.Cold,
        multivector_config=qdrant.MultiVectorConfig(qdrant.MultiVectorComparator.MaxSim),
        hnsw_config=qdrant.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=0),
    )


def _engine_point(point: Point) -> qdrant.Point:
    vectors: dict[str, Any] = {leg: _engine_vector(vector) for leg, vector in point.vectors.items()}
    return qdrant.Point(point.id, vectors, dict(point.payload))


def _engine_vector(vector: Vector) -> Any:
    return qdrant.SparseVector(vector.indices, vector.values) if isinstance(vector, Sparse) else vector


def _named(point: qdrant.Record) -> dict[Leg, Any]:
    return cast("dict[Leg, Any]", point.vector or {})


def _vector(found: Any) -> Vector:
    if isinstance(found, qdrant.SparseVector):
        return Sparse(found.indices, found.values)
    return np.array(found, np.float32) if isinstance(found[0], list) else found


def _engine_filter(where: Condition | None) -> qdrant.Filter | None:
    if where is None:
        return None
    groups: dict[str, Any] = {group: [_engine_part(part) for part in parts] for group, parts in where.items()}
    return qdrant.Filter(**groups)


def _engine_part(part: Condition) -> Any:
    match part:
        case {"has_id": ids}:
            return qdrant.HasIdCondition(set(ids))
        case {"key": key, "match": {"any": values}}:
            return qdrant.FieldCondition(key, match=qdrant.MatchAny(values))
        case {"key": key, "range": bounds}:
            return qdrant.FieldCondition(key, range=qdrant.RangeFloat(**bounds))
        case _:
            return _engine_filter(part)


def _stored(point: qdrant.Record) -> Stored:
    return Stored(str(point.id), point.payload or {})
