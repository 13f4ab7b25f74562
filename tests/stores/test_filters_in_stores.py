"""A store selects exactly what `filters.matches` selects, for any metadata and any filter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bgeserve.filters import And, Equals, Filter, In, Not, Or, Range, instant, matches
from bgeserve.vector_store import VectorStore
from tests.stores.conftest import Opener
from tests.stores.samples import SCHEMA, chunk, embed, query

# Few fields and values, so that filters meet documents; among them what engines confuse.
FIELDS = st.sampled_from(["a", 'a.b[0]"', "日"])
NUMBERS = st.sampled_from([0, 1, 1.0, -0.0, 0.5, 1e300, 2**53, 2**53 + 1, 2**63 - 1, -(2**63) + 1])
DATES = st.sampled_from(
    ["2024-02-29", "2024-02-29T00:00:00Z", "2024-02-29 01:00+01:00", "2024-03-01T12:30:00.25", "1912-06-23", "9999-12-31"]
)
VALUES = NUMBERS | DATES | st.sampled_from(["", "1", "True", "x", "X", "é", "2023-02-29", True, False])
METADATA = st.dictionaries(FIELDS, VALUES | st.lists(VALUES, max_size=3), max_size=4)
BOUNDS = st.fixed_dictionaries({}, optional=dict.fromkeys(("gt", "gte", "lt", "lte"), NUMBERS))
INSTANTS = DATES.map(lambda date: instant(date) or 0.0)
DATE_BOUNDS = st.fixed_dictionaries({"dates": st.just(True)}, optional=dict.fromkeys(("gt", "gte", "lt", "lte"), INSTANTS))
LEAVES = st.one_of(
    st.builds(Equals, FIELDS, VALUES),
    st.builds(In, FIELDS, st.lists(VALUES, max_size=3).map(tuple)),
    st.builds(lambda field, bounds: Range(field, **bounds), FIELDS, BOUNDS | DATE_BOUNDS),
)


def groups(parts: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(parts, max_size=3).map(tuple)
    return st.builds(And, several) | st.builds(Or, several) | st.builds(Not, parts)


FILTERS: st.SearchStrategy[Filter] = st.recursive(LEAVES, groups, max_leaves=8)


@pytest.fixture
def store(opener: Opener) -> Iterator[VectorStore]:
    store = opener()
    store.create("docs", SCHEMA)
    yield store
    store.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=st.lists(METADATA, min_size=1, max_size=8), filters=st.lists(FILTERS, min_size=1, max_size=8))
def test_selection_is_what_matches_says(store: VectorStore, documents: list[dict[str, Any]], filters: list[Filter]) -> None:
    store.delete("docs", [f"d{i}" for i in range(8)])
    chunks = [chunk(f"d{i}", f"word {i}", metadata) for i, metadata in enumerate(documents)]
    store.upsert("docs", chunks, embed(chunks))
    for filter in filters:
        expected = {c.document_id for c in chunks if matches(filter, c.metadata)}
        assert set(store.matching("docs", filter)) == expected
        for leg in ("dense", "full_text"):
            hits = store.search("docs", leg, query("word"), 8, filter)
            assert {c.document_id for c in store.fetch("docs", hits)} == expected


def test_ranges_over_more_fields_than_are_indexed(store: VectorStore) -> None:
    chunks = [chunk(f"d{i}", metadata={f"field {i}": i}) for i in range(40)]
    store.upsert("docs", chunks, embed(chunks))
    for i in range(40):
        assert store.matching("docs", Range(f"field {i}")) == [f"d{i}"]
        assert store.matching("docs", Range(f"field {i}", gte=i)) == [f"d{i}"]
        assert store.matching("docs", Range(f"field {i}", gt=i)) == []


BOUNDS: dict[str, dict[str, float]] = {
    "two lower bounds": {"gt": -(2**62), "gte": 1},
    "the other is the narrower": {"gt": 1, "gte": -5},
    "two upper bounds": {"lt": 100, "lte": 0},
    "nothing is between": {"gt": -5, "gte": 1, "lt": 1, "lte": 0},
    "above everything": {"gt": 1.7976931348623157e308},
    "one number": {"gte": 1, "lte": 1},
}


@pytest.mark.parametrize("bounds", BOUNDS)
def test_all_bounds_count(store: VectorStore, bounds: str) -> None:
    chunks = [chunk(f"d{i}", "word", {"a": value}) for i, value in enumerate((-2, -0.5, 0, 1, 1.5, [0, 2], [5, -5]))]
    store.upsert("docs", chunks, embed(chunks))
    selects = Range("a", **BOUNDS[bounds])
    expected = {c.document_id for c in chunks if matches(selects, c.metadata)}
    assert set(store.matching("docs", selects)) == expected
    assert set(store.matching("docs", Not(selects))) == {c.document_id for c in chunks} - expected
