"""What a store holds of chunks, as the vectors that a write takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bgeserve.types import Embeddings, Float32Array, SparseVector
from bgeserve.vector_store import CollectionSchema

NO_WEIGHTS = SparseVector(np.zeros(0, np.uint32), np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """One chunk's: what its collection has not, is None."""

    dense: Sequence[float] | Float32Array | None
    sparse: SparseVector | None
    multi_vector: Float32Array | None


def ascending(indices: Sequence[int], values: Sequence[float]) -> SparseVector:
    """From an engine that gives them in any order."""
    found = SparseVector(np.array(indices, np.uint32), np.array(values, np.float32))
    order = np.argsort(found.indices)
    return SparseVector(found.indices[order], found.values[order])


def embeddings_of(schema: CollectionSchema, stored: Sequence[StoredVectors]) -> Embeddings:
    dense = np.array([one.dense for one in stored if one.dense is not None], np.float32)
    return Embeddings(
        schema.fingerprint,
        tokens=[0] * len(stored),
        truncated=[False] * len(stored),
        dense=None if schema.dimensions is None else dense.reshape(len(stored), schema.dimensions),
        sparse=[one.sparse or NO_WEIGHTS for one in stored] if schema.has_sparse else None,
        multi_vector=None if schema.token_dimensions is None else [one.multi_vector for one in stored if one.multi_vector is not None],
    )
