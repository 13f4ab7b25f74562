"""A chunk as a Vespa document and back. Knows no client's calls.

The full-text leg is Vespa's own BM25, over words that are cut, stemmed and rid of stop words here, as for every store. The format:
docs.vespa.ai/en/reference/schemas/document-json-format.html.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from bgeserve.max_sim import as_float16
from bgeserve.stores.bm25 import WordSplitter
from bgeserve.stores.exporting import StoredVectors, ascending
from bgeserve.stores.keys import chunk_key, document_key
from bgeserve.stores.ranges import filterable
from bgeserve.stores.vespa_client import Fields
from bgeserve.stores.vespa_filter import TERMS
from bgeserve.stores.vespa_package import Shape
from bgeserve.types import Chunk, Embeddings, Float32Array, SparseVector, titled

WEIGHT_SCALE = 2**16
"""Whole numbers per 1.0 of a sparse weight."""
_MAX_WEIGHT = 2**31 - 1
"""Of a weighted set: an int of 32 bits."""
_PLACE_BITS = 63


def fields_of(chunk: Chunk, embeddings: Embeddings, row: int, shape: Shape, collection: str, splitter: WordSplitter) -> Fields:
    """`collection`: the keyword of its collection. Vespa takes an empty text, list or map for none at all, so such fields stay away."""
    key = chunk_key(chunk)
    fields: Fields = {
        "collection": collection,
        "key": key,
        "document_key": document_key(chunk.document_id),
        "place": place_of(key),
        "n": chunk.n,
        # In ASCII: a string of Vespa has no control characters, which a text may have.
        "record": json.dumps(asdict(chunk)),
        TERMS: filterable(chunk.metadata),
        "words": splitter.words(titled(chunk.title, chunk.text)),
    }
    if shape.dimensions is not None and embeddings.dense is not None:
        fields["dense"] = {"values": _hexadecimal(embeddings.dense[row])}
    if shape.has_sparse and embeddings.sparse is not None:
        fields |= {"weights": whole_weights(embeddings.sparse[row]), "sparse": cells(embeddings.sparse[row])}
    if shape.token_dimensions is not None and embeddings.multi_vector is not None:
        tokens = as_float16(embeddings.multi_vector[row])
        fields["multi_vector"] = {str(token): _hexadecimal(vector) for token, vector in enumerate(tokens)}
    return {name: value for name, value in fields.items() if value not in ([], {})}


def place_of(key: str) -> int:
    """Where a chunk stands in the order of keys, as far as a number of Vespa can say it: with `n`, enough to tell chunks apart but for
    the accident of two documents whose keys have the same beginning."""
    return int(key, 16) >> (4 * len(key) - _PLACE_BITS)


def chunk_of(fields: Mapping[str, Any]) -> Chunk:
    return Chunk(**json.loads(fields["record"]))


def stored_vectors(fields: Mapping[str, Any]) -> StoredVectors:
    """Of a hit whose tensors came as `short-value`."""
    weights: dict[str, float] = fields.get("sparse", {})
    blocks: dict[str, list[float]] = fields.get("multi_vector", {})
    return StoredVectors(
        fields.get("dense"),
        ascending([int(index) for index in weights], list(weights.values())),
        np.array([blocks[token] for token in sorted(blocks, key=int)], np.float32) if blocks else None,
    )


def whole_weights(vector: SparseVector) -> dict[str, int]:
    scaled = np.clip(np.rint(vector.values.astype(np.float64) * WEIGHT_SCALE), 1, _MAX_WEIGHT).astype(np.int64)
    return dict(zip(map(str, vector.indices.tolist()), scaled.tolist(), strict=True))


def cells(vector: SparseVector) -> dict[str, float]:
    return dict(zip(map(str, vector.indices.tolist()), vector.values.tolist(), strict=True))


def _hexadecimal(vector: Float32Array) -> str:
    """8 digits a value: a third of what the numbers would be, and exact."""
    return vector.astype(">f4").tobytes().hex().upper()
