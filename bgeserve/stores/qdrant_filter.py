"""Metadata as Qdrant indexes it, and filters as Qdrant conditions on that. Knows the filter language and Qdrant, not chunks.

Equality asks for keywords (`terms.py`; on its own values the engine reads True as 1, and then matches neither). Numbers lie in `numbers`
once more, for ranges, and the instants of dates in `dates`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from bgeserve.filters import And, Equals, Filter, In, Not, Or, Range, range_values
from bgeserve.stores.qdrant_shard import Condition
from bgeserve.stores.ranges import highest, lowest
from bgeserve.stores.terms import term, terms
from bgeserve.types import Metadata

TERMS = "terms"
_RANGED = {"numbers": False, "dates": True}
"""What lies where, for ranges: whether it is the dates."""
_NOTHING: Condition = {"must_not": [{}]}


def filterable(metadata: Metadata) -> dict[str, Any]:
    """The payload that `condition` looks at."""
    return {
        TERMS: terms(metadata),
        **{name: {_segment(field): found for field, found in _ranged(metadata, name)} for name in _RANGED},
    }


def number_paths(metadata: Metadata) -> set[str]:
    """Where the payload has numbers, or the instants of dates."""
    return {_number_path(field, name) for name in _RANGED for field, _ in _ranged(metadata, name)}


def condition(filter: Filter) -> Condition:
    """What selects exactly the chunks that `filters.matches` selects."""
    match filter:
        case And(filters):
            return {"must": [condition(part) for part in filters]}
        case Or(filters):
            # An empty `should` would select everything.
            return {"should": [condition(part) for part in filters]} if filters else _NOTHING
        case Not(inner):
            return {"must_not": [condition(inner)]}
        case Equals(field, value):
            return _any_term([term(field, value)])
        case In(field, wanted):
            return _any_term(term(field, value) for value in wanted)
        case Range():
            return _within(filter)


def _within(bounds: Range) -> Condition:
    # One bound on each side: of two, Qdrant takes one and forgets the other.
    low, high = lowest(bounds), highest(bounds)
    if low > high or low == math.inf or high == -math.inf:
        return _NOTHING
    sent = {"gte": None if low == -math.inf else low, "lte": None if high == math.inf else high}
    return {"must": [{"key": _number_path(bounds.field, "dates" if bounds.dates else "numbers"), "range": sent}]}


def _any_term(wanted: Iterable[str]) -> Condition:
    return {"must": [{"key": TERMS, "match": {"any": list(wanted)}}]}


def _ranged(metadata: Metadata, name: str) -> list[tuple[str, list[float]]]:
    return [(field, found) for field in metadata if (found := range_values(metadata, field, dates=_RANGED[name]))]


def _number_path(field: str, name: str) -> str:
    return f"{name}.{_segment(field)}"


def _segment(field: str) -> str:
    # A field name may hold dots, brackets and quotes, which a JSON path would read as structure.
    return "f" + field.encode("utf-8", "surrogatepass").hex()
