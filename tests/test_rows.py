"""Rows as documents: what every source has in common, and how what is wrong is named."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pytest

from bgeserve.errors import InvalidRequest
from bgeserve.rows import MAX_ID_CHARACTERS, document_of, parse_object
from bgeserve.types import Document


@pytest.mark.parametrize(
    ("row", "document"),
    [
        ({"id": "a", "text": "one"}, Document("a", "one")),
        ({"_id": 7, "text": "one"}, Document("7", "one")),
        ({"id": None, "_id": "b", "text": "one"}, Document("b", "one")),
        ({"id": "a", "text": "one", "title": "T"}, Document("a", "one", {}, "T")),
        ({"id": "a", "text": None, "title": "T"}, Document("a", "T")),
        ({"id": "a", "text": " ", "title": "T"}, Document("a", "T")),
        ({"id": "a", "text": "\n"}, Document("a", "")),
        (
            {"id": "a", "text": "one", "year": 1999, "tags": ["x", "y"], "gone": None},
            Document("a", "one", {"year": 1999, "tags": ["x", "y"]}),
        ),
        ({"id": "a", "text": "one", "lang": "en", "metadata": {"year": 1999}}, Document("a", "one", {"lang": "en", "year": 1999})),
        ({"id": "a", "text": "one", "metadata": '{"year": 1999}'}, Document("a", "one", {"year": 1999})),
        ({"id": "a", "text": "one", "metadata": ""}, Document("a", "one")),
        (
            {"id": "a", "text": "one", "day": date(2024, 1, 2), "at": datetime(2024, 1, 2, 3, 4)},
            Document("a", "one", {"day": "2024-01-02", "at": "2024-01-02T03:04:00"}),
        ),
    ],
)
def test_columns_become_a_document(row: dict[str, Any], document: Document) -> None:
    assert document_of(row) == document


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"text": "x"}, "id must be a string that is not empty, or a whole number, not None"),
        ({"id": "", "text": "x"}, "id must be"),
        ({"id": True, "text": "x"}, "id must be"),
        ({"_id": 1.5, "text": "x"}, "_id must be"),
        ({"id": "x" * (MAX_ID_CHARACTERS + 1), "text": "x"}, "id must have 1 to 512 characters, not 513"),
        ({"id": "a\ud800", "text": "x"}, "id holds bytes that are not UTF-8"),
        ({"id": "a"}, "text must be a string, not None"),
        ({"id": "a", "text": 5}, "text must be a string, not 5"),
        ({"id": "a", "text": "x", "title": 5}, "title must be a string, not 5"),
        ({"id": "a", "text": "\udcff"}, "text holds bytes that are not UTF-8"),
        ({"id": "a", "text": "x", "metadata": [1]}, "metadata must be an object, not list"),
        ({"id": "a", "text": "x", "metadata": "[1]"}, "must be a JSON object, not list"),
        ({"id": "a", "text": "x", "k": {"nested": 1}}, "metadata.k must be a string, a finite number"),
        ({"id": "a", "text": "x", "k": [1, None]}, "metadata.k must be"),
        ({"id": "a", "text": "x", "k": b"bytes"}, "metadata.k must be"),
        ({"id": "a", "text": "x", "k": float("nan")}, "metadata.k must be"),
        ({"id": "a", "text": "x", "k": 2**63}, "metadata.k must be"),
        ({"id": "a", "text": "x", "k": "\ud800"}, "metadata.k holds bytes"),
        ({"id": "a", "text": "x", "": 1}, "a column without a name"),
    ],
)
def test_what_is_wrong_is_named_by_its_column(row: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        document_of(row)
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("line", "named"), [(b'{"id": "b"', "not a line of JSON"), (b'{"a": NaN}', "NaN"), (b'{"a": "\xff"}', "utf-8"), ("[]", "not list")]
)
def test_a_line_that_is_no_object_is_refused(line: bytes | str, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        parse_object(line)
