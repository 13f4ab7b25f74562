"""Where documents come from: one function from a source's name to a lazy, ordered stream of documents.

    stdlib:        the docstrings of this machine's own Python standard library
    corpus.jsonl   one JSON object per line: {"id" or "_id", "text", "title"?, "metadata"?}
    a folder       its text and Markdown files; a document's id is the file's path inside the folder

Knows files, not what becomes of them. Everything wrong with a source is an InvalidRequest that names the file and the line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from bgeserve.docstrings import standard_library
from bgeserve.errors import InvalidRequest
from bgeserve.types import Document, MetadataValue

TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})

JSONL_FIELDS = frozenset({"id", "_id", "text", "title", "metadata"})

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


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
            document = _parse_line(line, where)
            if document.id in seen:
                raise _invalid(where, f"id {document.id!r} is on an earlier line already: of two documents with one id, one would be lost")
            seen.add(document.id)
            if document.text.strip():
                yield document
            else:
                on_empty(where)


def _parse_line(line: bytes, where: str) -> Document:
    try:
        parsed = json.loads(line, parse_constant=_refuse_constant)
    except ValueError as error:  # bad JSON and bad UTF-8
        raise _invalid(where, f"not a line of JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise _invalid(where, f"a line must be a JSON object, not {type(parsed).__name__}")
    row = cast("dict[str, Any]", parsed)
    if unknown := sorted(set(row) - JSONL_FIELDS):
        raise _invalid(where, f"unknown fields {unknown}: known are {sorted(JSONL_FIELDS)}, anything else belongs in metadata")
    id = _string(row, "id" if "id" in row else "_id", where)
    title = _string(row, "title", where) if row.get("title") else ""
    text = _string(row, "text", where) if row.get("text") != "" else ""
    metadata = _metadata(row.get("metadata"), where)
    return Document(id, text, metadata, title) if text else Document(id, title, metadata)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _string(row: dict[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value:
        raise _invalid(where, f"{field} must be a string that is not empty, not {value!r}")
    if LONE_SURROGATE.search(value):
        raise _invalid(where, f"{field} holds half of a surrogate pair, which stands for no character: {value!r}")
    return value


def _metadata(sent: object, where: str) -> dict[str, MetadataValue | list[MetadataValue]]:
    if sent is None:
        return {}
    if not isinstance(sent, dict):
        raise _invalid(where, f"metadata must be an object, not {type(sent).__name__}")
    metadata = cast("dict[str, Any]", sent)
    for key, value in metadata.items():
        values = cast("list[object]", value) if isinstance(value, list) else [value]
        if not all(isinstance(each, (str, int, float)) for each in values):
            raise _invalid(where, f"metadata.{key} must be a string, number or boolean, or a list of them, not {value!r}")
    return metadata


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
