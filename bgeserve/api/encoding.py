"""Arrays and answers to JSON. Each row becomes JSON by itself, so that no single call holds the interpreter for long."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import WithJsonSchema

from bgeserve.api.operation import Answer
from bgeserve.types import Embeddings, TokenVectors

EncodingFormat = Literal["float", "base64"]

IN_LOOP_BYTES = 64 * 1024
"""Up to this size JSON is read and written on the event loop (under a millisecond); above, a thread is cheaper than a stalled loop."""

Vector = Annotated[
    Any,
    WithJsonSchema(
        {
            "description": "numbers, or the base64 of their little-endian 4-byte values",
            "anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string", "contentEncoding": "base64"}],
        }
    ),
]
Matrix = Annotated[
    Any,
    WithJsonSchema(
        {
            "description": "a list of vectors, or their values in row order as base64 with the shape beside it",
            "anyOf": [
                {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
                {
                    "type": "object",
                    "properties": {
                        "shape": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
                        "base64": {"type": "string", "contentEncoding": "base64"},
                    },
                    "required": ["shape", "base64"],
                },
            ],
        }
    ),
]


def vector(values: NDArray[np.float32] | NDArray[np.uint32], encoding: EncodingFormat) -> orjson.Fragment:
    little_endian = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    if encoding == "base64":
        return orjson.Fragment(b'"' + b64encode(little_endian.data) + b'"')
    return orjson.Fragment(orjson.dumps(little_endian, option=orjson.OPT_SERIALIZE_NUMPY))


def matrix(rows: TokenVectors, encoding: EncodingFormat) -> object:
    values = rows.astype(np.float32, copy=False)
    if encoding == "base64":
        return {"shape": list(rows.shape), "base64": vector(values, encoding)}
    return vector(values, encoding)


def json_bytes(embeddings: Embeddings) -> int:
    """Of the answer, at about ten characters a number."""
    numbers = 0 if embeddings.dense is None else embeddings.dense.size
    numbers += sum(2 * weights.indices.size for weights in embeddings.sparse or ())
    numbers += sum(rows.size for rows in embeddings.multi_vector or ())
    return 10 * numbers


async def to_json(answer: Answer) -> bytes:
    if answer.size <= IN_LOOP_BYTES:
        return _dump(answer)
    return await asyncio.to_thread(_dump, answer)


def _dump(answer: Answer) -> bytes:
    # Scores may be numpy's numbers.
    return orjson.dumps(answer.render(), option=orjson.OPT_SERIALIZE_NUMPY)
