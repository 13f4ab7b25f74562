"""A collection's documents with their vectors in a Parquet file, which other programs read too: one row a chunk.

Columns: id, n, start, end, title, text, metadata (JSON), content_hash; and of what the collection has: dense (float32), sparse_indices and
sparse_values, multi_vector (float16, as they are stored). The fingerprint of the model that made the vectors is in the schema's metadata.
Needs pyarrow. Knows files, no service.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np

from bgeserve.errors import InvalidRequest, SettingsError
from bgeserve.types import Chunk, EmbeddedChunks, Embeddings, Float32Array, SparseVector

FORMAT = 1
ROW_GROUP_CHUNKS = 512
ROW_GROUP_BYTES = 32 * 2**20
"""Whichever comes first ends a row group: what reading and writing hold in memory at a time."""
_METADATA = b"bge_serve"

RecordBatch = Any
"""pyarrow's, which has no types."""


def require_pyarrow() -> None:
    """Raises SettingsError where it is not installed."""
    if find_spec("pyarrow") is None:
        raise SettingsError("this command needs pyarrow: pip install pyarrow (bge-serve[data] has it too)")


class ChunkFileWriter:
    """Writes beside `path`, and puts the file in its place when it is whole: a failure leaves what was there."""

    def __init__(self, path: Path, collection: str) -> None:
        self._path = path
        self._collection = collection
        self._partial = path.with_name(path.name + ".part")
        self._writer: Any = None
        self._waiting: list[RecordBatch] = []

    def write(self, documents: EmbeddedChunks) -> None:
        if not documents.chunks:
            return
        self._waiting.append(_rows(documents, self._collection))
        size = sum(rows.nbytes for rows in self._waiting)
        if size >= ROW_GROUP_BYTES or sum(rows.num_rows for rows in self._waiting) >= ROW_GROUP_CHUNKS:
            self._write_group()

    def _write_group(self) -> None:
        import pyarrow
        from pyarrow import parquet

        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._partial, self._waiting[0].schema, compression="zstd")
        self._writer.write_table(pyarrow.Table.from_batches(self._waiting))
        self._waiting = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._waiting:
            self._write_group()
        if self._writer is not None:
            self._writer.close()
        if kind is not None:
            self._partial.unlink(missing_ok=True)
        elif self._writer is None:
            raise InvalidRequest(f"collection {self._collection!r} has no documents to be exported", field="collection")
        else:
            self._partial.replace(self._path)


class ChunkFile:
    """An opened file. Raises InvalidRequest, naming it, when it is not one that `ChunkFileWriter` wrote."""

    def __init__(self, path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        self._path = path
        try:
            self._file = parquet.ParquetFile(path)
            said = json.loads(self._file.schema_arrow.metadata[_METADATA])
            self.fingerprint: str = said["fingerprint"]
            self.collection: str = said["collection"]
            self.format: int = said["format"]
        except (OSError, pyarrow.ArrowInvalid, KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(f"{path} is not a file that `bge-serve export` wrote: {error}", field="file") from error
        if self.format != FORMAT:
            raise InvalidRequest(f"{path} is of format {self.format}; this version reads {FORMAT}", field="file")
        self.chunks: int = self._file.metadata.num_rows

    def documents(self) -> Iterator[EmbeddedChunks]:
        """Pieces in the order of the file; one may end within a document."""
        for group in range(self._file.num_row_groups):
            for rows in self._file.iter_batches(batch_size=ROW_GROUP_CHUNKS, row_groups=[group]):
                yield EmbeddedChunks(_chunks(rows), _embeddings(rows, self.fingerprint))


def _rows(documents: EmbeddedChunks, collection: str) -> RecordBatch:
    import pyarrow

    chunks, embeddings = documents.chunks, documents.embeddings
    columns: dict[str, Any] = {
        "id": pyarrow.array([chunk.document_id for chunk in chunks], pyarrow.string()),
        "n": pyarrow.array([chunk.n for chunk in chunks], pyarrow.int64()),
        "start": pyarrow.array([chunk.start for chunk in chunks], pyarrow.int64()),
        "end": pyarrow.array([chunk.end for chunk in chunks], pyarrow.int64()),
        "title": pyarrow.array([chunk.title for chunk in chunks], pyarrow.string()),
        "text": pyarrow.array([chunk.text for chunk in chunks], pyarrow.string()),
        "metadata": pyarrow.array([json.dumps(dict(chunk.metadata), ensure_ascii=False) for chunk in chunks], pyarrow.string()),
        "content_hash": pyarrow.array([chunk.content_hash for chunk in chunks], pyarrow.string()),
    }
    if embeddings.dense is not None:
        columns["dense"] = _fixed_lists(embeddings.dense)
    if embeddings.sparse is not None:
        lengths = [vector.indices.size for vector in embeddings.sparse]
        columns["sparse_indices"] = _lists(_flat([vector.indices for vector in embeddings.sparse], np.uint32), lengths)
        columns["sparse_values"] = _lists(_flat([vector.values for vector in embeddings.sparse], np.float32), lengths)
    if embeddings.multi_vector is not None:
        tokens = _fixed_lists(np.concatenate(embeddings.multi_vector).astype(np.float16))
        columns["multi_vector"] = _lists(tokens, [len(rows) for rows in embeddings.multi_vector])
    said = {"format": FORMAT, "fingerprint": embeddings.fingerprint, "collection": collection}
    return pyarrow.RecordBatch.from_pydict(columns, metadata={_METADATA: json.dumps(said).encode()})


def _flat(parts: list[Any], dtype: Any) -> Any:
    return np.concatenate([np.zeros(0, dtype), *parts])


def _fixed_lists(rows: Any) -> Any:
    import pyarrow

    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.reshape(-1)), rows.shape[1])


def _lists(values: Any, lengths: list[int]) -> Any:
    import pyarrow

    return pyarrow.ListArray.from_arrays(pyarrow.array(np.cumsum([0, *lengths]), pyarrow.int32()), values)


def _chunks(rows: RecordBatch) -> list[Chunk]:
    named = ("id", "n", "start", "end", "text", "metadata", "content_hash", "title")
    found = zip(*(rows.column(name).to_pylist() for name in named), strict=True)
    return [Chunk(id, n, start, end, text, json.loads(said), hash, title) for id, n, start, end, text, said, hash, title in found]


def _embeddings(rows: RecordBatch, fingerprint: str) -> Embeddings:
    has = set(rows.schema.names)
    return Embeddings(
        fingerprint,
        tokens=[0] * rows.num_rows,
        truncated=[False] * rows.num_rows,
        dense=_matrix(rows.column("dense")) if "dense" in has else None,
        sparse=_sparse(rows) if "sparse_indices" in has else None,
        multi_vector=[_matrix(each.values) for each in rows.column("multi_vector")] if "multi_vector" in has else None,
    )


def _matrix(lists: Any) -> Float32Array:
    values = np.asarray(lists.flatten().to_numpy(zero_copy_only=False), np.float32)
    return values.reshape(len(lists), -1)


def _sparse(rows: RecordBatch) -> list[SparseVector]:
    pairs = zip(rows.column("sparse_indices"), rows.column("sparse_values"), strict=True)
    return [SparseVector(np.asarray(indices.values, np.uint32), np.asarray(values.values, np.float32)) for indices, values in pairs]
