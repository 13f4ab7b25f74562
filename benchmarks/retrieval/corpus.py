"""Made-up chunks and queries, the same ones every time: vectors in clusters as models make them, words as languages have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bgeserve.types import Chunk, Embeddings, Float32Array, Leg, Query, SparseVector

FINGERPRINT = "benchmark"
CLUSTERS = 1000
CLUSTER_SPREAD = 0.8
"""Of a vector around its cluster's centre, whose length is 1."""
VOCABULARY = 30_000
WORDS = 40
SPARSE_TERMS = 58
"""Per document, as BGE-M3 gives passages of ordinary length."""
QUERY_WORDS = 6
QUERY_TOKENS = 32
PIECE = 512


@dataclass(frozen=True, slots=True)
class Corpus:
    documents: int
    dimensions: int
    legs: Sequence[Leg]
    """Which vectors it has, beside its words."""
    tokens: int = 64
    """Token vectors per document."""

    def pieces(self) -> Iterator[tuple[list[Chunk], Embeddings]]:
        rng = np.random.default_rng(0)
        centres = self._centres()
        for start in range(0, self.documents, PIECE):
            ids = range(start, min(start + PIECE, self.documents))
            chunks = [_chunk(f"d{i}", _text(rng, WORDS)) for i in ids]
            yield chunks, self._embeddings(rng, centres[np.arange(ids.start, ids.stop) % CLUSTERS])

    def queries(self, count: int) -> list[Query]:
        rng = np.random.default_rng(1)
        made = self._embeddings(rng, self._centres()[rng.integers(0, CLUSTERS, count)], QUERY_TOKENS, QUERY_WORDS)
        return [
            Query(
                _text(rng, QUERY_WORDS),
                dense=None if made.dense is None else made.dense[i],
                sparse=None if made.sparse is None else made.sparse[i],
                multi_vector=None if made.multi_vector is None else made.multi_vector[i],
            )
            for i in range(count)
        ]

    def _centres(self) -> Float32Array:
        return _normalized(np.random.default_rng(2).standard_normal((CLUSTERS, self.dimensions)).astype(np.float32))

    def _embeddings(
        self, rng: np.random.Generator, centres: Float32Array, tokens: int | None = None, terms: int = SPARSE_TERMS
    ) -> Embeddings:
        count = len(centres)
        tokens = tokens or self.tokens
        has = set(self.legs)
        return Embeddings(
            FINGERPRINT,
            tokens=[tokens] * count,
            truncated=[False] * count,
            dense=_around(rng, centres) if "dense" in has else None,
            sparse=[_sparse(rng, terms) for _ in range(count)] if "sparse" in has else None,
            multi_vector=[_around(rng, np.repeat(centre[None], tokens, 0)) for centre in centres] if "multi_vector" in has else None,
        )


def _chunk(id: str, text: str) -> Chunk:
    return Chunk(id, 0, 0, len(text), text, {"shelf": int(id[1:]) % 10}, content_hash=id)


def _text(rng: np.random.Generator, words: int) -> str:
    return " ".join(f"w{rank}" for rank in _ranks(rng, words))


def _sparse(rng: np.random.Generator, terms: int) -> SparseVector:
    indices = np.unique(_ranks(rng, terms)).astype(np.uint32)
    return SparseVector(indices, rng.uniform(0.01, 0.4, indices.size).astype(np.float32))


def _ranks(rng: np.random.Generator, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Of words by how frequent they are (Zipf's law)."""
    return (rng.zipf(1.2, count) - 1) % VOCABULARY


def _around(rng: np.random.Generator, centres: Float32Array) -> Float32Array:
    noise = _normalized(rng.standard_normal(centres.shape).astype(np.float32))
    return _normalized(centres + CLUSTER_SPREAD * noise)


def _normalized(vectors: Float32Array) -> Float32Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
