"""Filters as YQL over one array of keywords (`terms.py`, `ranges.py`). Knows the filter language and YQL, not chunks.

A schema of Vespa cannot name the metadata fields that documents will have; keywords need no names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bgeserve.filters import And, Equals, Filter, In, Not, Or, Range
from bgeserve.stores.ranges import range_terms
from bgeserve.stores.terms import term

TERMS = "terms"
EVERYTHING = "true"
NOTHING = "false"


def expression(filter: Filter) -> str:
    """What selects exactly the chunks that `filters.matches` selects."""
    match filter:
        case And(filters):
            return all_of(map(expression, filters))
        case Or(filters):
            return _joined([expression(part) for part in filters], "or", NOTHING)
        case Not(inner):
            # There is no negation but beside something that is selected.
            return f"({EVERYTHING} and !({expression(inner)}))"
        case Equals(field, value):
            wanted = [term(field, value)]
        case In(field, values):
            wanted = [term(field, value) for value in values]
        case Range():
            wanted = range_terms(filter)
    return any_of(TERMS, wanted)


def any_of(field: str, values: Iterable[str]) -> str:
    """Selects what has one of these values, which are hexadecimal: nothing in them needs escaping."""
    found = ",".join(f'"{value}"' for value in values)
    return f"{field} in ({found})" if found else NOTHING


def all_of(parts: Iterable[str]) -> str:
    return _joined([part for part in parts if part != EVERYTHING], "and", EVERYTHING)


def _joined(parts: Sequence[str], operator: str, nothing_to_join: str) -> str:
    if len(parts) < 2:
        return parts[0] if parts else nothing_to_join
    return f"({f' {operator} '.join(parts)})"
