"""Metadata as Qdrant indexes it, and filters as Qdrant conditions on that. Knows the filter language and Qdrant, not chunks.

Every (field, value) pair becomes one keyword in `terms`: one index serves all equality, a flag stays apart from a count (the engine reads
True as 1, and then matches neither), integers of 64 bits stay exact, and a field may have any name. Numbers lie in `numbers` once more,
for ranges.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from qdrant_edge import FieldCondition, MatchAny, RangeFloat
from qdrant_edge import Filter as Condition

from bgeserve.filters import And, Equals, Filter, In, Not, Or, Range, field_values
from bgeserve.types import Metadata, MetadataValue

TERMS = "terms"
_NOTHING = Condition(must_not=[Condition()])


def filterable(metadata: Metadata) -> dict[str, Any]:
    """The payload that `condition` looks at."""
    return {
        TERMS: [_term(field, value) for field in metadata for value in field_values(metadata, field)],
        "numbers": {_segment(field): numbers for field in metadata if (numbers := _numbers(metadata, field))},
    }


def number_paths(metadata: Metadata) -> set[str]:
    """Where the payload has numbers."""
    return {_number_path(field) for field in metadata if _numbers(metadata, field)}


def condition(filter: Filter) -> Condition:
    """What selects exactly the chunks that `filters.matches` selects."""
    match filter:
        case And(filters):
            return Condition(must=[condition(part) for part in filters])
        case Or(filters):
            # An empty `should` would select everything.
            return Condition(should=[condition(part) for part in filters]) if filters else _NOTHING
        case Not(inner):
            return Condition(must_not=[condition(inner)])
        case Equals(field, value):
            return _any_term([_term(field, value)])
        case In(field, wanted):
            return _any_term(_term(field, value) for value in wanted)
        case Range(field, gt, gte, lt, lte):
            return Condition(must=[FieldCondition(_number_path(field), range=RangeFloat(gt=gt, gte=gte, lt=lt, lte=lte))])


def _any_term(terms: Iterable[str]) -> Condition:
    return Condition(must=[FieldCondition(TERMS, match=MatchAny(list(terms)))])


def _term(field: str, value: MetadataValue) -> str:
    # Hashed, since an index entry should not grow with a long value; 128 bits do not collide.
    text = f"{len(field)}:{field}{_canonical(value)}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _canonical(value: MetadataValue) -> str:
    if isinstance(value, str):
        return f"s{value}"
    if isinstance(value, bool):
        return f"b{value:d}"
    # 1 and 1.0 are equal, as in `matches`.
    return f"n{int(value)}" if value == int(value) else f"n{value!r}"


def _numbers(metadata: Metadata, field: str) -> list[float]:
    return [float(value) for value in field_values(metadata, field) if not isinstance(value, (str, bool))]


def _number_path(field: str) -> str:
    return f"numbers.{_segment(field)}"


def _segment(field: str) -> str:
    # A field name may hold dots, brackets and quotes, which a JSON path would read as structure.
    return "f" + field.encode("utf-8", "surrogatepass").hex()
