"""What a Qdrant collection asks of its engine: embedded (`qdrant_edge_shard.py`) and remote
(`qdrant_server_shard.py`) have two libraries for it.

Conditions are in the JSON form of Qdrant's API, which both can read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from bgeserve.types import Float32Array, Leg
from bgeserve.vector_store import CollectionSchema, ScoredId

Condition = Mapping[str, Any]
Payload = Mapping[str, Any]


class Sparse(NamedTuple):
    indices: list[int]
    values: list[float]


Vector = list[float] | Sparse | Float32Array
"""Dense, sparse, or token vectors: [vectors, dimensions] of values that float16 keeps."""


class Point(NamedTuple):
    id: str
    vectors: Mapping[Leg, Vector]
    payload: Payload


class Stored(NamedTuple):
    """A point without its vectors; `payload` has the fields that were asked for."""

    id: str
    payload: Payload


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What BM25 knows of the collection: mean tokens per chunk, measured when it had so many chunks (0: not yet)."""

    average_tokens: float = 1.0
    measured_chunks: int = 0


class Shard(Protocol):
    """The calls that each raise ServiceError when the engine fails."""

    def upsert(self, points: Sequence[Point]) -> None: ...
    def update_full_text(self, vectors: Mapping[str, Sparse]) -> None:
        """Replace these points' vectors of words, and nothing else of them."""
        ...

    def delete(self, ids: Sequence[str]) -> None: ...
    def scroll(
        self, where: Condition | None, fields: bool | Sequence[str], limit: int, offset: str | None
    ) -> tuple[list[Stored], str | None]:
        """In the order of ids, from `offset` on, and where the next page begins. `fields`: of the payload, True for all."""
        ...

    def nearest(self, leg: Leg, vector: Vector, limit: int, where: Condition | None, oversampling: float | None = None) -> list[ScoredId]:
        """Best first; equal scores in any order. Quantized vectors find `oversampling` times as many, which the whole ones score anew."""
        ...

    def vectors(self, ids: Sequence[str], legs: Sequence[Leg]) -> Mapping[str, Mapping[Leg, Vector]]:
        """By id; a vector that a point has not got is left out."""
        ...

    def retrieve(self, ids: Sequence[str]) -> list[Stored]:
        """In any order."""
        ...

    def count(self, where: Condition | None) -> int: ...
    def indexed_fields(self) -> set[str]: ...
    def index_field(self, field: str, kind: str) -> None:
        """`kind`: as in Qdrant's API."""
        ...

    def save(self, schema: CollectionSchema, lexicon: Lexicon) -> None:
        """Keep beside the points what was measured of them, durably; what they have been given before is durable first."""
        ...

    def drop(self) -> None: ...
