"""One row of a source as a Document, or why it is none: the same rules for JSON lines, CSV, Parquet and a Ray Dataset.

    id (or _id)   a string of 1 to 512 characters, or a whole number, which becomes its digits
    text, title   strings; a title alone is the text
    metadata      an object, or one written as JSON; every other column is metadata too, under its own name

A null is the same as a column that is not there. Dates and times become ISO 8601 strings, as filters know them.
Knows one row at a time, and not where rows come from.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, cast

from bgeserve.errors import InvalidRequest
from bgeserve.filters import MAX_INTEGER
from bgeserve.types import Document, MetadataValue

MAX_ID_CHARACTERS = 512

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_object(line: bytes | str) -> dict[str, Any]:
    """A line of JSON as a row. Raises InvalidRequest: bad JSON, bad UTF-8, something other than an object."""
    try:
        parsed = json.loads(line, parse_constant=_refuse_constant)
    except ValueError as error:  # bad JSON and bad UTF-8
        raise InvalidRequest(f"not a line of JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise InvalidRequest(f"a line must be a JSON object, not {type(parsed).__name__}")
    return cast("dict[str, Any]", parsed)


def document_of(row: Mapping[str, Any]) -> Document:
    """The row's document; one without a word in it has an empty `text`. Raises InvalidRequest, which names the column."""
    columns = {name: value for name, value in row.items() if value is not None}
    ids = [(name, columns.pop(name)) for name in ("id", "_id") if name in columns]
    id = _id(*ids[0]) if ids else _id("id", None)
    title = _string("title", columns.pop("title", ""))
    text = _string("text", columns.pop("text", "" if title else None))
    stated = _object(columns.pop("metadata", {}))
    metadata = {name: _metadata_value(name, value) for name, value in {**columns, **stated}.items() if value is not None}
    if not text.strip():
        title, text = "", title
    return Document(id, text if text.strip() else "", metadata, title)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _id(name: str, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{name} must be a string that is not empty, or a whole number, not {value!r}")
    if len(value) > MAX_ID_CHARACTERS:
        raise InvalidRequest(f"{name} must have 1 to {MAX_ID_CHARACTERS} characters, not {len(value)}")
    return _string(name, value)


def _string(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a string, not {_brief(value)}")
    if LONE_SURROGATE.search(value):
        raise InvalidRequest(f"{name} holds bytes that are not UTF-8, or half of a surrogate pair: {_brief(value)}")
    return value


def _object(sent: object) -> dict[str, Any]:
    if isinstance(sent, str):
        sent = parse_object(sent) if sent.strip() else {}
    if not isinstance(sent, dict):
        raise InvalidRequest(f"metadata must be an object, not {type(sent).__name__}")
    return cast("dict[str, Any]", sent)


def _metadata_value(name: str, value: object) -> MetadataValue | list[MetadataValue]:
    if not _string("the name of a metadata column", name):
        raise InvalidRequest(f"a column without a name cannot be metadata: {_brief(value)}")
    if isinstance(value, (list, tuple)):
        return [_scalar(name, each) for each in cast("Sequence[object]", value)]
    return _scalar(name, value)


def _scalar(name: str, value: object) -> MetadataValue:
    if isinstance(value, date):  # datetimes too
        return value.isoformat()
    if isinstance(value, str):
        return _string(f"metadata.{name}", value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and abs(value) <= MAX_INTEGER:  # booleans too
        return value
    raise InvalidRequest(
        f"metadata.{name} must be a string, a finite number of at most 64 bits, a boolean or a date, or a list of them, not {_brief(value)}"
    )


def _brief(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 100 else f"{said[:99]}…"
