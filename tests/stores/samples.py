"""Chunks and vectors for the tests of stores and of the retriever: deterministic, and different for each text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bgeserve.types import Chunk, Embeddings, Float32Array, Query, SparseVector
from bgeserve.vector_store import CollectionSchema

DIMENSIONS = 8
FINGERPRINT = "tiny@1"
TOKEN_DIMENSIONS = 4
SCHEMA = CollectionSchema(FINGERPRINT, DIMENSIONS, has_sparse=True, language="english", token_dimensions=TOKEN_DIMENSIONS)


def chunk(id: str, text: str = "some text", metadata: Mapping[str, Any] | None = None, n: int = 0) -> Chunk:
    content_hash = hashlib.sha256(f"{text} {metadata}".encode("utf-8", "surrogatepass")).hexdigest()
    return Chunk(id, n, 0, len(text), text, metadata or {}, content_hash)


def pieces_of(id: str, texts: Sequence[str], version: str = "1") -> list[Chunk]:
    """One document of several chunks, which carry one hash."""
    return [Chunk(id, n, 0, len(text), text, {}, f"{id} {version}") for n, text in enumerate(texts)]


def embed(chunks: Sequence[Chunk], fingerprint: str = FINGERPRINT) -> Embeddings:
    return Embeddings(
        fingerprint,
        tokens=[len(c.text) for c in chunks],
        truncated=[False] * len(chunks),
        dense=np.stack([dense(c.text) for c in chunks]) if chunks else np.zeros((0, DIMENSIONS), np.float32),
        sparse=[sparse(c.text) for c in chunks],
        multi_vector=[tokens(c.text) for c in chunks],
    )


def query(text: str) -> Query:
    return Query(text, dense=dense(text), sparse=sparse(text), multi_vector=tokens(text))


def dense(text: str) -> Float32Array:
    return _unit_vector(text, DIMENSIONS)


def tokens(text: str) -> Float32Array:
    """One vector a word, and one for the beginning, as of every text."""
    return np.stack([_unit_vector(word, TOKEN_DIMENSIONS) for word in ("", *text.split())])


def sparse(text: str) -> SparseVector:
    indices = np.unique([_seed(word) for word in text.split()]).astype(np.uint32)
    return SparseVector(indices, (indices % 7 + 1).astype(np.float32) / 4)


def _unit_vector(text: str, dimensions: int) -> Float32Array:
    vector = np.random.default_rng(_seed(text)).standard_normal(dimensions).astype(np.float32)
    return vector / np.linalg.norm(vector)


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4], "little")
