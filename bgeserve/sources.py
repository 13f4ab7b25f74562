"""Where documents come from: one function from a source's name to a lazy, ordered stream of documents.

    stdlib:        the docstrings of this machine's own Python standard library
    corpus.jsonl   one JSON object per line: {"id" or "_id", "text", "title"?, "metadata"?}
    a folder       its text and Markdown files; a document's id is the file's path inside the folder

Knows files, not what becomes of them. Everything wrong with a source is an InvalidRequest that names the file and the line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from bgeserve.docstrings import standard_library
from bgeserve.errors import InvalidRequest
from bgeserve.rows import document_of, parse_object
from bgeserve.types import Document

TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})
LINES_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})
CSV_SUFFIXES = frozenset({".csv"})
PARQUET_SUFFIXES = frozenset({".parquet"})
COMPRESSIONS = frozenset({".gz", ".bz2", ".zst", ".lz4"})
READ_BY_JOBS = (LINES_SUFFIXES | CSV_SUFFIXES | PARQUET_SUFFIXES | COMPRESSIONS) - {".jsonl"}


def needs_ray_data(source: str) -> bool:
    """Whether a job has to read it (`graphs/jobs_files.py`): it is not on this machine, or in a format that is not read here."""
    return "://" in source or Path(source).suffix.lower() in READ_BY_JOBS


def read_documents(source: str, on_empty: Callable[[str], object] = lambda where: None) -> Iterator[Document]:
    """The source's documents, the same ones in the same order each time. Raises InvalidRequest, here or at the bad line.

    A document without a word in it cannot be searched for and is left out; `on_empty` hears where it was (`corpus.jsonl:471`).
    """
    if source == "stdlib:":
        return standard_library()
    path = Path(source)
    if path.is_dir():
        return _read_folder(path, on_empty)
    if path.is_file() and path.suffix == ".jsonl":
        return _read_jsonl(path, on_empty)
    raise _invalid(source, 'a source is "stdlib:", a .jsonl file that exists, or a folder that exists')


def _read_jsonl(path: Path, on_empty: Callable[[str], object]) -> Iterator[Document]:
    seen: set[str] = set()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                document = document_of(parse_object(line))
            except InvalidRequest as error:
                raise _invalid(where, error.message) from None
            if document.id in seen:
                raise _invalid(where, f"id {document.id!r} is on an earlier line already: of two documents with one id, one would be lost")
            seen.add(document.id)
            if document.text:
                yield document
            else:
                on_empty(where)


def _read_folder(folder: Path, on_empty: Callable[[str], object]) -> Iterator[Document]:
    """Hidden files and folders are left out."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.suffix.lower() not in TEXT_SUFFIXES or not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise _invalid(f"{path}:{line}", "not UTF-8 text") from None
        if text.strip():
            yield Document(relative.as_posix(), text, {"folder": relative.parent.as_posix()})
        else:
            on_empty(str(path))


def _invalid(where: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: {what}", field="source")
