"""Filters as Milvus expressions over one array of keywords (`terms.py`, `ranges.py`). Knows the filter language and Milvus, not chunks.

Milvus's own JSON paths would take seconds on Lite, and cannot say that one of several numbers lies within bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bgeserve.filters import And, Equals, Filter, In, Not, Or, Range
from bgeserve.stores.ranges import range_terms
from bgeserve.stores.terms import term

TERMS = "terms"
EVERYTHING = 'key != ""'
NOTHING = 'key == ""'


def expression(filter: Filter, most_terms: int | None) -> str:
    """What selects exactly the chunks that `filters.matches` selects.

    `most_terms`: of any chunk of the collection, for an engine that fails on `not` (Lite 2.5.1). None: it does not.
    """
    return _expression(filter, most_terms, negated=False)


def any_of(field: str, values: Iterable[str]) -> str:
    """Selects what has one of these values, of which there is at least one."""
    return f"{field} in {_list(values)}"


def all_parts(parts: Sequence[str]) -> str:
    return _joined(parts, "and", EVERYTHING)


def _expression(filter: Filter, most_terms: int | None, *, negated: bool) -> str:
    match filter:
        case And(filters) | Or(filters):
            parts = [_expression(part, most_terms, negated=negated) for part in filters]
            # The negation of all is any of the negated.
            return _joined(parts, "or", NOTHING) if isinstance(filter, Or) != negated else _joined(parts, "and", EVERYTHING)
        case Not(inner):
            return _expression(inner, most_terms, negated=not negated)
        case Equals(field, value):
            wanted = [term(field, value)]
        case In(field, values):
            wanted = [term(field, value) for value in values]
        case Range():
            wanted = range_terms(filter)
    return _has_none(wanted, most_terms) if negated else _has_any(wanted)


def _has_any(wanted: Sequence[str]) -> str:
    return f"array_contains_any({TERMS}, {_list(wanted)})" if wanted else NOTHING


def _has_none(wanted: Sequence[str], most_terms: int | None) -> str:
    if not wanted:
        return EVERYTHING
    if most_terms is None:
        return f"(not {_has_any(wanted)})"
    # Beyond the end of an array nothing is in a list.
    return _joined([f"{TERMS}[{i}] not in {_list(wanted)}" for i in range(most_terms)], "and", EVERYTHING)


def _joined(parts: Sequence[str], operator: str, nothing_to_join: str) -> str:
    """As a balanced tree: Lite fails on a chain of 50."""
    if len(parts) < 2:
        return parts[0] if parts else nothing_to_join
    middle = len(parts) // 2
    left, right = _joined(parts[:middle], operator, nothing_to_join), _joined(parts[middle:], operator, nothing_to_join)
    return f"({left} {operator} {right})"


def _list(values: Iterable[str]) -> str:
    # Keys and keywords are hexadecimal: nothing in them needs escaping.
    return "[" + ",".join(f'"{value}"' for value in values) + "]"
