"""Embedding without a service: a model in each actor of a Ray Data pool, texts in, columns of vectors out.

Knows Arrow columns and the engine. Does not know where the texts come from, nor what becomes of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from bgeserve.caller import A_JOB
from bgeserve.settings import EmbedderSettings
from bgeserve.types import Embeddings, InputType, Output

Table = Any
Column = Any
"""pyarrow's Table and Array; pyarrow has no types."""

DENSE = pa.list_(pa.float32())
SPARSE = pa.struct([("indices", pa.list_(pa.uint32())), ("values", pa.list_(pa.float32()))])


class Encode:
    """For `Dataset.map_batches(Encode, batch_format="pyarrow", ...)`: loads its model once per actor, keeps the batch's columns and adds

    dense         list<float32>: one vector, L2-normalised
    sparse        struct<indices: list<uint32>, values: list<float32>>: vocabulary ids, ascending, and their weights
    multi_vector  list<list<float32>>: a vector per token, each L2-normalised

    of each text, as `POST /v1/encode` would answer, `tokens` (uint32) and `truncated`. Raises InvalidRequest (an output that the model
    lacks), CheckpointError, SettingsError.
    """

    def __init__(
        self,
        model: str,
        *,
        outputs: Sequence[Output] = ("dense",),
        column: str = "text",
        input_type: InputType = "document",
        settings: EmbedderSettings | None = None,
    ) -> None:
        """model: a hub name, a folder, or `package:NAME`. column: whose strings are embedded. settings: everything else of the model;
        None: as for a replica that has what its actor was given (`num_cpus`, `num_gpus`)."""
        # Only the actors that compute pay for importing torch.
        from bgeserve.engine import EmbedderEngine

        if settings is None:
            given = ray.get_runtime_context().get_assigned_resources()
            settings = EmbedderSettings(model=model, cpus=given.get("CPU") or 1, gpus=given.get("GPU", 0))
        # Ray Data bounds what waits.
        self._engine = EmbedderEngine(model, settings.model_copy(update={"model": model, "max_queue_s": inf}))
        self._outputs = tuple(outputs)
        self._column = column
        self._input_type: InputType = input_type

    async def __call__(self, batch: Table) -> Table:
        texts = batch.column(self._column).to_pylist()
        embeddings = await self._engine.encode(texts, outputs=self._outputs, input_type=self._input_type, caller=A_JOB)
        for name, column in columns_of(embeddings).items():
            batch = batch.append_column(name, column)
        return batch


def columns_of(embeddings: Embeddings) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    if embeddings.dense is not None:
        columns["dense"] = _lists(list(embeddings.dense), DENSE)
    if embeddings.sparse is not None:
        indices = _lists([vector.indices for vector in embeddings.sparse], SPARSE.field("indices").type)
        values = _lists([vector.values for vector in embeddings.sparse], SPARSE.field("values").type)
        columns["sparse"] = pa.StructArray.from_arrays([indices, values], fields=list(SPARSE))
    if embeddings.multi_vector is not None:
        vectors = _lists([vector for text in embeddings.multi_vector for vector in text], DENSE)
        columns["multi_vector"] = pa.ListArray.from_arrays(_offsets([len(text) for text in embeddings.multi_vector]), vectors)
    columns["tokens"] = pa.array(embeddings.tokens, pa.uint32())
    columns["truncated"] = pa.array(embeddings.truncated, pa.bool_())
    return columns


def _lists(rows: Sequence[np.ndarray], kind: Any) -> Column:
    """An array a row, without a Python object a number."""
    values = pa.array(np.concatenate(rows) if rows else np.empty(0), kind.value_type)
    return pa.ListArray.from_arrays(_offsets([len(row) for row in rows]), values)


def _offsets(lengths: Sequence[int]) -> Column:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
