"""Parquet files of documents with their vectors: what is read is what was written, by us and by others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bgeserve.chunk_file import ROW_GROUP_CHUNKS, ChunkFile, ChunkFileWriter
from bgeserve.errors import InvalidRequest
from bgeserve.splitting import select_embeddings
from bgeserve.types import EmbeddedChunks, Embeddings
from bgeserve.wire_collections import MAX_PAGE_BYTES, MAX_PAGE_DOCUMENTS, bytes_of, split_chunks
from tests.stores.samples import chunk, embed, pieces_of

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

DOCUMENTS = [
    chunk("plain"),
    chunk("日本", "日本語 und \x00 \n", {"s": "ä", "i": 2**63 - 1, "f": 0.1, "one": 1.0, "t": True, "list": ["a", 1, False]}),
    *(replace(piece, title="Long", start=3, end=9) for piece in pieces_of("long", ["first", "second", "third"])),
]


def documents(chunks: list) -> EmbeddedChunks:
    """With token vectors, as a store keeps them."""
    rng = np.random.default_rng(0)
    tokens = [rng.standard_normal((n % 4 + 1, 6)).astype(np.float16).astype(np.float32) for n in range(len(chunks))]
    return EmbeddedChunks(chunks, replace(embed(chunks), multi_vector=tokens, tokens=[0] * len(chunks)))


def assert_equal(one: EmbeddedChunks, other: EmbeddedChunks) -> None:
    assert list(one.chunks) == list(other.chunks)
    for ours, theirs in zip(one.chunks, other.chunks, strict=True):
        assert [type(value) for value in ours.metadata.values()] == [type(value) for value in theirs.metadata.values()]
    assert_same_vectors(one.embeddings, other.embeddings)


def assert_same_vectors(one: Embeddings, other: Embeddings) -> None:
    assert one.fingerprint == other.fingerprint
    assert (one.dense is None, one.sparse is None, one.multi_vector is None) == (
        other.dense is None,
        other.sparse is None,
        other.multi_vector is None,
    )
    if one.dense is not None:
        np.testing.assert_array_equal(one.dense, other.dense)
    for ours, theirs in zip(one.sparse or (), other.sparse or (), strict=True):
        np.testing.assert_array_equal(ours.indices, theirs.indices)
        np.testing.assert_array_equal(ours.values, theirs.values)
        assert (ours.indices.dtype, ours.values.dtype) == (np.uint32, np.float32)
    for ours, theirs in zip(one.multi_vector or (), other.multi_vector or (), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == np.float32


def write(path: Path, pieces: Iterable[EmbeddedChunks]) -> Path:
    with ChunkFileWriter(path, "docs@1") as writer:
        for piece in pieces:
            writer.write(piece)
    return path


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    file = ChunkFile(write(tmp_path / "docs.parquet", [documents(DOCUMENTS)]))
    assert (file.fingerprint, file.collection, file.chunks) == ("tiny@1", "docs@1", 5)
    (back,) = file.documents()
    assert_equal(back, documents(DOCUMENTS))


@pytest.mark.parametrize("kept", ["dense", "sparse", "multi_vector"])
def test_only_the_vectors_that_there_are_have_columns(tmp_path: Path, kept: str) -> None:
    sent = documents(DOCUMENTS)
    others = {name: None for name in ("dense", "sparse", "multi_vector") if name != kept}
    sent = EmbeddedChunks(sent.chunks, replace(sent.embeddings, **others))  # type: ignore[arg-type]
    (back,) = ChunkFile(write(tmp_path / "docs.parquet", [sent])).documents()
    assert_equal(back, sent)


def test_the_columns_are_of_common_types(tmp_path: Path) -> None:
    table = parquet.read_table(write(tmp_path / "docs.parquet", [documents(DOCUMENTS)]))
    assert {field.name: str(field.type) for field in table.schema} == {
        "id": "string",
        "n": "int64",
        "start": "int64",
        "end": "int64",
        "title": "string",
        "text": "string",
        "metadata": "string",
        "content_hash": "string",
        "dense": "fixed_size_list<element: float>[8]",
        "sparse_indices": "list<element: uint32>",
        "sparse_values": "list<element: float>",
        "multi_vector": "list<element: fixed_size_list<element: halffloat>[6]>",
    }
    assert json.loads(table.column("metadata")[1].as_py())["list"] == ["a", 1, False]


def test_large_files_are_read_in_pieces_and_documents_come_whole_out_of_them(tmp_path: Path) -> None:
    chunks = [piece for i in range(400) for piece in pieces_of(f"d{i}", [f"piece {n} of {i}" for n in range(i % 7 + 1)])]
    everything = documents(chunks)
    path = write(tmp_path / "docs.parquet", _in_parts(everything, 100))
    pieces = list(ChunkFile(path).documents())
    assert max(len(piece.chunks) for piece in pieces) <= ROW_GROUP_CHUNKS < len(chunks)
    batches = list(split_chunks(pieces))
    assert all(len({each.document_id for each in batch.chunks}) <= MAX_PAGE_DOCUMENTS for batch in batches)
    ids = [each.document_id for batch in batches for each in {each.document_id: each for each in batch.chunks}.values()]
    assert ids == [f"d{i}" for i in range(400)]
    assert [each for batch in batches for each in batch.chunks] == chunks
    tokens = [rows for batch in batches for rows in batch.embeddings.multi_vector or ()]
    assert all((ours == theirs).all() for ours, theirs in zip(tokens, everything.embeddings.multi_vector or (), strict=True))


def test_a_row_group_is_bounded_by_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = documents([chunk(f"d{i}", "x" * 1000) for i in range(100)])
    monkeypatch.setattr("bgeserve.chunk_file.ROW_GROUP_BYTES", 20_000)
    path = write(tmp_path / "docs.parquet", _in_parts(everything, 10))
    assert parquet.ParquetFile(path).num_row_groups == 5
    assert [len(piece.chunks) for piece in ChunkFile(path).documents()] == [20] * 5


def test_requests_are_bounded_by_bytes_and_a_larger_document_goes_alone() -> None:
    texts = ["x" * (MAX_PAGE_BYTES // 3)] * 4 + ["y" * 2 * MAX_PAGE_BYTES, "z"]
    batches = list(split_chunks([documents([chunk(f"d{i}", text) for i, text in enumerate(texts)])]))
    assert [[each.document_id for each in batch.chunks] for batch in batches] == [["d0", "d1"], ["d2", "d3"], ["d4"], ["d5"]]
    assert all(bytes_of(batch) <= MAX_PAGE_BYTES for batch in batches if batch.chunks[0].document_id != "d4")


def _in_parts(everything: EmbeddedChunks, size: int) -> Iterator[EmbeddedChunks]:
    for start in range(0, len(everything.chunks), size):
        rows = range(start, min(start + size, len(everything.chunks)))
        yield EmbeddedChunks([everything.chunks[row] for row in rows], select_embeddings(everything.embeddings, rows))


def test_an_export_that_fails_leaves_the_file_of_the_last_one(tmp_path: Path) -> None:
    path = write(tmp_path / "docs.parquet", [documents(DOCUMENTS)])
    many = documents([chunk(f"d{i}") for i in range(ROW_GROUP_CHUNKS)])

    def interrupted() -> Iterator[EmbeddedChunks]:
        yield many
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(path, interrupted())
    assert ChunkFile(path).chunks == 5
    assert [found.name for found in tmp_path.iterdir()] == ["docs.parquet"]


def test_nothing_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"'docs@1' has no documents"):
        write(tmp_path / "docs.parquet", [])
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_others_is_refused_by_name(tmp_path: Path) -> None:
    other, text = tmp_path / "other.parquet", tmp_path / "text"
    parquet.write_table(pyarrow.table({"id": ["a"]}), other)
    text.write_text("no parquet")
    for path in (other, text, tmp_path / "missing"):
        with pytest.raises(InvalidRequest, match=rf"{path} is not a file that `bge-serve export` wrote"):
            ChunkFile(path)
