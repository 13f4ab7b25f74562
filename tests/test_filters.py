from __future__ import annotations

from typing import Any

import pytest

from bgeserve.errors import InvalidRequest
from bgeserve.filters import MAX_DEPTH, MAX_NODES, And, Equals, In, Not, Or, Range, instant, matches, parse_filter

DOCUMENT = {"module": "gzip", "lines": 12, "share": 0.5, "public": True, "tags": ["io", 3, False], "day": "2024-02-29T08:00:00Z"}


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (Equals("module", "gzip"), True),
        (Equals("module", "Gzip"), False),
        (Equals("lines", 12.0), True),
        (Equals("public", True), True),
        (Equals("public", 1), False),
        (Equals("lines", "12"), False),
        (Equals("tags", "io"), True),
        (Equals("tags", 0), False),
        (Equals("absent", "x"), False),
        (Not(Equals("absent", "x")), True),
        (In("module", ("bz2", "gzip")), True),
        (In("module", ()), False),
        (Range("lines", gte=12, lt=13), True),
        (Range("lines", gt=12), False),
        (Range("lines", lte=11.9), False),
        (Range("tags", gt=2), True),
        (Range("module", gt=0), False),
        (Range("public", gte=0), False),
        (Range("lines"), True),
        (Range("module"), False),
        (Range("day", gte=instant("2024-02-29"), lt=instant("2024-03-01"), dates=True), True),
        (Range("day", gt=instant("2024-02-29T08:00Z"), dates=True), False),
        (Range("day", gte=instant("2024-02-29T10:00+02:00"), dates=True), True),
        (Range("day", gte=0), False),
        (Range("lines", gte=0, dates=True), False),
        (Range("module", dates=True), False),
        (And(()), True),
        (Or(()), False),
        (And((Equals("module", "gzip"), Range("lines", gt=20))), False),
        (Or((Equals("module", "gzip"), Range("lines", gt=20))), True),
    ],
)
def test_meaning(filter: Any, expected: bool) -> None:
    assert matches(filter, DOCUMENT) is expected


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"field": "module", "eq": "gzip"}, Equals("module", "gzip")),
        ({"field": "public", "eq": True}, Equals("public", True)),
        ({"field": "module", "in": ["gzip", 1, 2.5]}, In("module", ("gzip", 1, 2.5))),
        ({"field": "lines", "gte": 10, "lt": 100}, Range("lines", gte=10, lt=100)),
        ({"field": "day", "gte": "1970-01-02", "lt": "1970-01-01T23:00:00-02:00"}, Range("day", gte=86400, lt=90000, dates=True)),
        (
            {"and": [{"or": [{"field": "a", "eq": 1}]}, {"not": {"field": "b", "gt": 0}}]},
            And((Or((Equals("a", 1),)), Not(Range("b", gt=0)))),
        ),
    ],
)
def test_json_form(sent: object, expected: object) -> None:
    assert parse_filter(sent) == expected


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        (None, "filter must be an object"),
        ({}, "filter must be an object"),
        ([], "filter must be an object"),
        ({"eq": "x"}, "must name its field"),
        ({"field": "", "eq": "x"}, "must name its field"),
        ({"field": 3, "eq": "x"}, "must name its field"),
        ({"field": "a"}, "needs one of eq, in, or bounds"),
        ({"field": "a", "eq": 1, "gt": 2}, "eq', 'gt"),
        ({"field": "a", "like": "x"}, "like"),
        ({"field": "a", "eq": None}, "filter.eq"),
        ({"field": "a", "eq": [1]}, "filter.eq"),
        ({"field": "a", "eq": float("nan")}, "filter.eq"),
        ({"field": "a", "in": []}, "at least one value"),
        ({"field": "a", "in": ["x", None]}, r"filter.in\[1\]"),
        ({"field": "a", "gt": "x"}, "filter.gt"),
        ({"field": "a", "gt": True}, "filter.gt"),
        ({"field": "a", "gt": "2023-02-29"}, "filter.gt must be a date such as 2024-01-31"),
        ({"field": "a", "gt": "2024-01-01", "lt": 5}, "filter.lt must be a date"),
        ({"field": "a", "lt": 2**63}, str(2**63)),
        ({"and": []}, "filter.and"),
        ({"and": [{"field": "a", "eq": 1}], "or": []}, "must name its field"),
        ({"or": [{"field": "a", "eq": 1}, {"not": {"field": "b"}}]}, r"filter.or\[1\].not needs"),
    ],
)
def test_what_is_wrong_is_named(sent: object, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named) as refused:
        parse_filter(sent)
    assert refused.value.field == "filter"


def nested(depth: int) -> dict[str, Any]:
    leaf: dict[str, Any] = {"field": "a", "eq": 1}
    for _ in range(depth - 1):
        leaf = {"not": leaf}
    return leaf


def test_depth_and_size_are_bounded() -> None:
    parse_filter(nested(MAX_DEPTH))
    parse_filter({"or": [{"field": "a", "eq": i} for i in range(MAX_NODES - 1)]})
    for sent in (nested(MAX_DEPTH + 1), {"or": [{"field": "a", "eq": i} for i in range(MAX_NODES)]}):
        with pytest.raises(InvalidRequest, match=f"at most {MAX_NODES} conditions, nested at most {MAX_DEPTH}"):
            parse_filter(sent)
