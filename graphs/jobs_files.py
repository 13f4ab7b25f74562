"""Files of any format, at any URI that Ray Data reads, as a Dataset of records: what `rows.py` made of each row, and where it stood.

Knows files and rows. What cannot be read is a record too, so that one bad line, or one broken file, never ends a job.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.data import DataContext, Dataset
from ray.data.datasource import FileBasedDatasource

from bgeserve.errors import InvalidRequest
from bgeserve.rows import document_of, parse_object
from bgeserve.sources import COMPRESSIONS, CSV_SUFFIXES, LINES_SUFFIXES, PARQUET_SUFFIXES, TEXT_SUFFIXES

Table = Any
"""pyarrow.Table or RecordBatch; pyarrow has no types."""
RECORD = pa.schema(
    [("where", pa.string()), ("document", pa.string()), ("why", pa.string()), ("row", pa.string()), ("source_bytes", pa.int64())]
)
"""`document` as JSON, or, where there is none, `why` and the `row` as JSON."""
MAX_RECORDS = 256
READ_BUFFER_BYTES = 2**20
READER_CPUS = 0.1
READERS = 4
"""Reading is little work beside embedding, and a cluster may have given nearly all its CPUs to its replicas."""


@dataclass(frozen=True, slots=True)
class Row:
    content: Mapping[str, Any] | bytes
    """Columns, or a line of JSON."""
    source_bytes: int
    number: int | None = None
    """Line or row of the file, from 1. None: the row is the whole file."""
    why: str | None = None
    """Known already not to be a document."""


def read_files(source: str) -> tuple[Dataset, int | None]:
    """Records of a file, or of a folder's files with a known suffix; and how many bytes there are to read (None: they are compressed).

    Raises InvalidRequest (there is nothing to read).
    """
    try:
        files = _Files(source)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{source}: {error}", field="source") from None
    return ray.data.read_datasource(files, num_cpus=READER_CPUS, concurrency=READERS), files.total_bytes()


def records_of(dataset: Dataset) -> Dataset:
    """Records of rows that somebody else has read."""
    return dataset.map_batches(_records_of_table, batch_format="pyarrow", batch_size=MAX_RECORDS, num_cpus=READER_CPUS, concurrency=READERS)


def _records_of_table(table: Table) -> Table:
    return _table([_record("dataset", Row(row, 0)) for row in _rows_of(table)])


class _Files(FileBasedDatasource):
    def __init__(self, source: str) -> None:
        texts = (*LINES_SUFFIXES, *CSV_SUFFIXES, *TEXT_SUFFIXES)
        # Parquet compresses inside.
        suffixes = [*PARQUET_SUFFIXES, *(suffix + compression for suffix in texts for compression in ("", *COMPRESSIONS))]
        super().__init__(source, file_extensions=[suffix.removeprefix(".") for suffix in suffixes])
        self._source = source.rpartition("://")[2].rstrip("/")

    def total_bytes(self) -> int | None:
        if any(self.resolve_compression(path, {}) for path in self._paths()):
            return None
        return self.estimate_inmemory_data_size()

    def _open_input_source(self, filesystem: Any, path: str, **open_args: Any) -> AbstractContextManager[Any]:
        try:
            if path.lower().endswith(tuple(PARQUET_SUFFIXES)):
                return filesystem.open_input_file(path)  # read from its end
            return super()._open_input_source(filesystem, path, **open_args)
        except OSError as error:
            return nullcontext(error)

    def _read_stream(self, f: Any, path: str) -> Iterator[Table]:
        records: list[dict[str, Any]] = []
        for row in self._readable(f, path):
            records.append(_record(path if row.number is None else f"{path}:{row.number}", row))
            if len(records) == MAX_RECORDS:
                yield _table(records)
                records = []
        if records:
            yield _table(records)

    def _readable(self, f: Any, path: str) -> Iterator[Row]:
        """The file's rows, up to where it is broken."""
        try:
            if isinstance(f, OSError):
                raise f
            yield from self._rows(f, path)
        except (OSError, ValueError, EOFError, csv.Error) as error:
            if any(passing in str(error) for passing in DataContext.get_current().retried_io_errors):
                raise  # Ray Data reads the file again
            yield Row({}, 0, why=f"cannot be read: {error}")

    def _rows(self, f: Any, path: str) -> Iterator[Row]:
        name = path.lower()
        for compression in COMPRESSIONS:
            name = name.removesuffix(compression)
        if name.endswith(tuple(PARQUET_SUFFIXES)):
            return _parquet_rows(f)
        if name.endswith(tuple(CSV_SUFFIXES)):
            return _csv_rows(f)
        if name.endswith(tuple(LINES_SUFFIXES)):
            return _json_rows(f)
        return iter([self._text(f.read(), path)])

    def _text(self, content: bytes, path: str) -> Row:
        """A text file, under the same id as in `sources.py`: its path inside the source."""
        _, inside, relative = path.partition(f"{self._source}/")
        id = relative if inside else path.rpartition("/")[2]
        row = {"id": id, "text": content.decode("utf-8", "surrogateescape"), "folder": id.rpartition("/")[0] or "."}
        return Row(row, len(content))


def _json_rows(f: Any) -> Iterator[Row]:
    for number, line in enumerate(io.BufferedReader(f, READ_BUFFER_BYTES), start=1):
        if line.strip():
            yield Row(line, len(line), number)


def _csv_rows(f: Any) -> Iterator[Row]:
    """An empty cell is the same as none. Bytes that are not UTF-8 come as lone surrogates, which `rows.py` refuses."""
    csv.field_size_limit(sys.maxsize)
    text = io.TextIOWrapper(io.BufferedReader(f, READ_BUFFER_BYTES), "utf-8-sig", "surrogateescape", newline="")
    reader = csv.reader(text)
    header = next(reader, [])
    number = reader.line_num + 1
    for cells in reader:
        size = sum(len(cell) + 1 for cell in cells)
        if cells and len(cells) != len(header):
            yield Row({"cells": cells}, size, number, f"has {len(cells)} cells, and the header {len(header)}")
        elif cells:
            yield Row({name: cell for name, cell in zip(header, cells, strict=True) if cell}, size, number)
        number = reader.line_num + 1


def _parquet_rows(f: Any) -> Iterator[Row]:
    file = pq.ParquetFile(f)
    row_bytes = f.size() // max(1, file.metadata.num_rows)
    number = 0
    for batch in file.iter_batches(MAX_RECORDS):
        for row in _rows_of(batch):
            number += 1
            yield Row(row, row_bytes, number)


def _rows_of(table: Table) -> list[dict[str, Any]]:
    try:
        return table.to_pylist(maps_as_pydicts="strict")
    except UnicodeDecodeError:
        strings = [name for name, kind in zip(table.schema.names, table.schema.types, strict=True) if pa.types.is_string(kind)]
        for name in strings:
            i = table.schema.names.index(name)
            table = table.set_column(i, name, table.column(i).cast(pa.binary()))
        return [_decoded(row, strings) for row in table.to_pylist(maps_as_pydicts="strict")]


def _decoded(row: dict[str, Any], strings: list[str]) -> dict[str, Any]:
    """Bytes that are not UTF-8 as lone surrogates, as in CSV."""
    return {**row, **{name: row[name].decode("utf-8", "surrogateescape") for name in strings if row[name] is not None}}


def _record(where: str, row: Row) -> dict[str, Any]:
    content = row.content
    try:
        if row.why is not None:
            raise InvalidRequest(row.why)
        document = document_of(parse_object(content) if isinstance(content, bytes) else content)
        if not document.text:
            raise InvalidRequest("has no text")
        stated = {"id": document.id, "text": document.text, "metadata": document.metadata, "title": document.title}
        return {"where": where, "document": json.dumps(stated, ensure_ascii=False), "source_bytes": row.source_bytes}
    except InvalidRequest as error:
        shown = content.decode("utf-8", "backslashreplace").rstrip("\r\n") if isinstance(content, bytes) else content
        return {"where": where, "why": error.message, "row": json.dumps(shown, default=str), "source_bytes": row.source_bytes}


def _table(records: list[dict[str, Any]]) -> Table:
    return pa.Table.from_pylist(records, schema=RECORD)
