"""One collection on a Qdrant server: the client's calls, and metadata that say what the collection is made of. Knows no connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from bgeserve.errors import ServiceError, StoreError, Unavailable
from bgeserve.stores.qdrant_shard import Condition, Lexicon, Point, Sparse, Stored, Vector
from bgeserve.types import Leg
from bgeserve.vector_store import CollectionSchema, ScoredId

P = ParamSpec("P")
T = TypeVar("T")

FORMAT = 1
_METADATA = "bge_serve"
_QUANTIZATIONS = {
    "none": None,
    "scalar": models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)),
    "turbo": models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig(bits=models.TurboQuantBitSize.BITS8, always_ram=True)),
    "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
}


class ServerShard:
    """Implements `Shard`. Writes are answered when they can be found."""

    def __init__(self, client: QdrantClient, name: str) -> None:
        self._client = client
        self._name = name

    @classmethod
    def create(cls, client: QdrantClient, name: str, schema: CollectionSchema) -> ServerShard:
        sparse = {"full_text": models.SparseVectorParams(modifier=models.Modifier.IDF)}
        if schema.has_sparse:
            sparse["sparse"] = models.SparseVectorParams()
        vectors: dict[str, models.VectorParams] = {}
        if schema.dimensions is not None:
            quantization = _QUANTIZATIONS[schema.quantization]
            vectors["dense"] = models.VectorParams(
                size=schema.dimensions,
                distance=models.Distance.COSINE,
                quantization_config=quantization,
                on_disk=None if quantization is None else True,
            )
        if schema.token_dimensions is not None:
            vectors["multi_vector"] = _token_vector_params(schema.token_dimensions)
        metadata = _metadata(schema, Lexicon())
        call(name, client.create_collection, name, vectors_config=vectors, sparse_vectors_config=sparse, metadata=metadata)
        return cls(client, name)

    def described(self) -> tuple[CollectionSchema, Lexicon]:
        """Raises StoreError when we did not make the collection."""
        metadata = self._call(self._client.get_collection, self._name).config.metadata or {}
        try:
            content = metadata[_METADATA]
            if content["format"] == FORMAT:
                return CollectionSchema(**content["schema"]), Lexicon(**content["lexicon"])
        except (KeyError, TypeError) as error:
            raise StoreError(f"collection {self._name!r} was not made by bge-serve: {error!r}", field="collection_prefix") from error
        message = f"collection {self._name!r} is of format {content['format']}; this version reads {FORMAT}"
        raise StoreError(message, field="collection_prefix")

    def drop(self) -> None:
        self._call(self._client.delete_collection, self._name)

    def upsert(self, points: Sequence[Point]) -> None:
        structs = [models.PointStruct(id=point.id, vector=_vectors(point.vectors), payload=dict(point.payload)) for point in points]
        self._call(self._client.upsert, self._name, structs, wait=True)

    def update_full_text(self, vectors: Mapping[str, Sparse]) -> None:
        if vectors:
            changed = [models.PointVectors(id=id, vector=_vectors({"full_text": vector})) for id, vector in vectors.items()]
            self._call(self._client.update_vectors, self._name, changed, wait=True)

    def delete(self, ids: Sequence[str]) -> None:
        self._call(self._client.delete, self._name, list(ids), wait=True)

    def scroll(
        self, where: Condition | None, fields: bool | Sequence[str], limit: int, offset: str | None
    ) -> tuple[list[Stored], str | None]:
        wanted = fields if isinstance(fields, bool) else list(fields)
        scroll = self._client.scroll
        points, following = self._call(
            scroll, self._name, scroll_filter=_filter(where), limit=limit, offset=offset, with_payload=wanted, with_vectors=False
        )
        return [_stored(point) for point in points], None if following is None else str(following)

    def nearest(self, leg: Leg, vector: Vector, limit: int, where: Condition | None, oversampling: float | None = None) -> list[ScoredId]:
        quantization = None if oversampling is None else models.QuantizationSearchParams(rescore=True, oversampling=oversampling)
        params = None if quantization is None else models.SearchParams(quantization=quantization)
        query = self._client.query_points
        asked = _vector(vector)
        found = self._call(
            query, self._name, query=asked, using=leg, query_filter=_filter(where), limit=limit, with_payload=False, search_params=params
        )
        return [ScoredId(str(point.id), point.score) for point in found.points]

    def vectors(self, ids: Sequence[str], legs: Sequence[Leg]) -> Mapping[str, Mapping[Leg, Vector]]:
        retrieve = self._client.retrieve
        points = self._call(retrieve, self._name, list(ids), with_payload=False, with_vectors=list[str](legs)) if ids else []
        return {str(point.id): {leg: _our_vector(found) for leg, found in _named(point).items()} for point in points}

    def retrieve(self, ids: Sequence[str]) -> list[Stored]:
        return [_stored(point) for point in self._call(self._client.retrieve, self._name, list(ids), with_payload=True)] if ids else []

    def count(self, where: Condition | None) -> int:
        return self._call(self._client.count, self._name, count_filter=_filter(where), exact=True).count

    def indexed_fields(self) -> set[str]:
        return set(self._call(self._client.get_collection, self._name).payload_schema)

    def index_field(self, field: str, kind: str) -> None:
        self._call(self._client.create_payload_index, self._name, field, models.PayloadSchemaType(kind), wait=True)

    def save(self, schema: CollectionSchema, lexicon: Lexicon) -> None:
        self._call(self._client.update_collection, self._name, metadata=_metadata(schema, lexicon))

    def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return call(self._name, function, *args, **kwargs)


def call(collection: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Raises Unavailable when there is no server, or it fails or has no room for us now; ServiceError for what it refuses."""
    try:
        return function(*args, **kwargs)
    except ResponseHandlingException as error:
        raise Unavailable(f"collection {collection!r}: Qdrant did not answer: {error}") from error
    except (ApiException, QdrantException) as error:
        kind = Unavailable if _is_down(error) else ServiceError
        raise kind(f"collection {collection!r}: Qdrant failed: {error}") from error


def _is_down(error: Exception) -> bool:
    """Its 4xx are about what was asked; the client has an error of its own for 429."""
    status = error.status_code if isinstance(error, UnexpectedResponse) else None
    return isinstance(error, ResourceExhaustedResponse) or (status is not None and status >= 500)


def _token_vector_params(dimensions: int) -> models.VectorParams:
    """As in `qdrant_edge_shard.py`, with the reasons."""
    return models.VectorParams(
        size=dimensions,
        distance=models.Distance.DOT,
        datatype=models.Datatype.FLOAT16,
        on_disk=True,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
        hnsw_config=models.HnswConfigDiff(m=0),
    )


def _metadata(schema: CollectionSchema, lexicon: Lexicon) -> dict[str, Any]:
    return {_METADATA: {"format": FORMAT, "schema": asdict(schema), "lexicon": asdict(lexicon)}}


def _vectors(vectors: Mapping[Leg, Vector]) -> dict[str, Any]:
    return {leg: _vector(vector) for leg, vector in vectors.items()}


def _vector(vector: Vector) -> Any:
    if isinstance(vector, Sparse):
        return models.SparseVector(indices=vector.indices, values=vector.values)
    return vector if isinstance(vector, list) else vector.tolist()


def _named(point: models.Record) -> dict[Leg, Any]:
    return cast("dict[Leg, Any]", point.vector or {})


def _our_vector(found: Any) -> Vector:
    if isinstance(found, models.SparseVector):
        return Sparse(found.indices, found.values)
    return np.array(found, np.float32) if isinstance(found[0], list) else found


def _filter(where: Condition | None) -> models.Filter | None:
    return None if where is None else models.Filter.model_validate(where)


def _stored(point: models.Record) -> Stored:
    return Stored(str(point.id), point.payload or {})
