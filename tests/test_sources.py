"""Sources: what comes out, in which order, and how everything wrong is named."""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path

import pytest

from bgeserve.errors import InvalidRequest
from bgeserve.sources import needs_ray_data, read_documents
from bgeserve.types import Document


@pytest.fixture(scope="module")
def stdlib() -> list[Document]:
    return list(read_documents("stdlib:"))


def test_the_standard_library_is_a_corpus_of_thousands_of_distinct_documents(stdlib: list[Document]) -> None:
    assert len({document.id for document in stdlib}) == len(stdlib) > 4_000
    assert all(document.text.startswith(document.id.split("(")[0]) for document in stdlib)


def test_a_documented_class_is_found_under_the_name_that_people_import(stdlib: list[Document]) -> None:
    documents = {document.id: document for document in stdlib}
    parser = documents["argparse.ArgumentParser"]
    assert "Object for parsing command line strings into Python objects." in parser.text
    assert "prog=None" in parser.text
    assert parser.metadata["module"] == "argparse"
    assert parser.metadata["kind"] == "class"
    assert "class ArgumentParser" in inspect.getsource(argparse).splitlines()[int(str(parser.metadata["line"])) - 1]
    assert documents["gzip.open"].metadata["kind"] == "function"
    assert "sha256" in documents["hashlib"].text  # whose docstring is assigned, not written first
    assert documents["decimal.Decimal.sqrt"].metadata["module"] == "decimal"  # implemented in C, described in _pydecimal
    assert documents["tomllib.load"].metadata["module"] == "tomllib"


def test_a_class_carries_what_its_constructor_says(stdlib: list[Document]) -> None:
    text = next(document.text for document in stdlib if document.id == "gzip.GzipFile")
    assert "The GzipFile class simulates" in text
    assert "At least one of fileobj and filename must be" in text


def test_what_a_method_says_comes_with_what_its_module_is_for(stdlib: list[Document]) -> None:
    text = next(document.text for document in stdlib if document.id == "gzip.GzipFile.rewind")
    assert text.endswith("\n\ngzip: Functions that read and write gzipped files.")


def test_tests_and_private_names_are_left_out(stdlib: list[Document]) -> None:
    names = [part for document in stdlib for part in document.id.split(".")]
    assert not [name for name in names if name.startswith("_") or name in {"idlelib", "lib2to3", "tests", "distutils"}]


def test_reading_twice_gives_the_same_documents_in_the_same_order(stdlib: list[Document]) -> None:
    assert list(read_documents("stdlib:")) == stdlib


def test_reading_imports_none_of_it(stdlib: list[Document]) -> None:
    assert "antigravity.geohash" in {document.id for document in stdlib}  # which opens a browser when imported
    assert "antigravity" not in sys.modules


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_jsonl_takes_id_or_underscore_id_and_a_title(tmp_path: Path) -> None:
    path = write(
        tmp_path / "corpus.jsonl",
        '{"id": "a", "text": "one", "metadata": {"lines": 3, "tags": ["x", "y"]}}\n\n{"_id": "b", "title": "Two", "text": "two"}\n',
    )
    assert list(read_documents(str(path))) == [Document("a", "one", {"lines": 3, "tags": ["x", "y"]}), Document("b", "two", {}, "Two")]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"id": "b"', "not a line of JSON"),
        (b'{"id": "b", "text": "\xff"}', "not a line of JSON"),
        ('{"id": "b", "text": "x", "metadata": {"n": NaN}}', "NaN"),
        ('["b", "x"]', "must be a JSON object, not list"),
        ('{"text": "x"}', "id must be a string"),
        ('{"id": "b"}', "text must be a string"),
        ('{"id": "b", "text": 5}', "text must be a string"),
        ('{"id": "b", "text": "\\ud800"}', "surrogate"),
        ('{"id": "b", "text": "x", "metadata": []}', "metadata must be an object"),
        ('{"id": "b", "text": "x", "metadata": {"k": {}}}', "metadata.k"),
        ('{"id": "a", "text": "x"}', "id 'a' is on an earlier line"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path: Path, line: str | bytes, named: str) -> None:
    raw = line.encode() if isinstance(line, str) else line
    path = write(tmp_path / "corpus.jsonl", b'{"id": "a", "text": "one"}\n' + raw + b"\n")
    documents = read_documents(str(path))
    assert next(documents).id == "a"
    with pytest.raises(InvalidRequest) as caught:
        next(documents)
    assert caught.value.message.startswith(f"{path}:2: ")
    assert named in caught.value.message


def test_documents_without_a_word_are_left_out_and_told(tmp_path: Path) -> None:
    path = write(tmp_path / "corpus.jsonl", '{"id": "a", "text": ""}\n{"id": "b", "title": "B", "text": ""}\n{"id": "c", "text": " \\n"}\n')
    write(tmp_path / "folder" / "empty.txt", " \n")
    empty: list[str] = []
    assert list(read_documents(str(path), empty.append)) == [Document("b", "B")]
    assert list(read_documents(str(tmp_path / "folder"), empty.append)) == []
    assert empty == [f"{path}:1", f"{path}:3", str(tmp_path / "folder" / "empty.txt")]


def test_a_folder_gives_its_text_files_by_relative_path(tmp_path: Path) -> None:
    for name, text in {"b.md": "# B", "a/z.txt": "Zed", "empty.txt": " \n", ".git/notes.txt": "hidden", "image.png": "binary"}.items():
        write(tmp_path / name, text)
    assert list(read_documents(str(tmp_path))) == [Document("a/z.txt", "Zed", {"folder": "a"}), Document("b.md", "# B", {"folder": "."})]


def test_a_file_that_is_not_utf8_is_named_by_file_and_line(tmp_path: Path) -> None:
    write(tmp_path / "latin.txt", b"fine\ncaf\xe9\n")
    with pytest.raises(InvalidRequest, match=r"latin\.txt:2: not UTF-8"):
        list(read_documents(str(tmp_path)))


@pytest.mark.parametrize("source", ["nowhere", "stdlib", "missing.jsonl"])
def test_an_unknown_source_is_refused_at_once(source: str) -> None:
    with pytest.raises(InvalidRequest, match="a source is"):
        read_documents(source)


@pytest.mark.parametrize(
    ("source", "needed"),
    [("stdlib:", False), ("corpus.jsonl", False), ("notes/", False), ("corpus.parquet", True), ("corpus.CSV", True),
     ("corpus.jsonl.gz", True), ("s3://bucket/corpus/", True), ("file:///corpus.jsonl", True)],
)  # fmt: skip
def test_what_is_not_read_here_is_for_a_job(source: str, needed: bool) -> None:
    assert needs_ray_data(source) is needed
