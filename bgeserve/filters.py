"""The metadata filter language: five node types, their JSON form, and what they mean.

    {"field": "module", "eq": "gzip"}          {"field": "module", "in": ["gzip", "bz2"]}
    {"field": "lines", "gte": 10, "lt": 100}   {"field": "published", "gte": "2024-01-01", "lt": "2025-01-01T09:30:00+02:00"}
    {"and": [...]}   {"or": [...]}   {"not": {...}}

`matches` is the meaning: a store's translation of a filter must select exactly what `matches` selects. A list-valued field matches when any
of its values does; a field that a document lacks matches nothing (so `not` of it matches).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from bgeserve.errors import InvalidRequest
from bgeserve.quoting import brief
from bgeserve.travels import travels
from bgeserve.types import Metadata, MetadataValue

MAX_DEPTH = 16
MAX_NODES = 256
MAX_INTEGER = 2**63 - 1
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?")


@travels
class Equals:
    field: str
    value: MetadataValue


@travels
class In:
    field: str
    values: tuple[MetadataValue, ...]


@travels
class Range:
    """Numbers only, compared as 64-bit floats; a bound that is None is open.

    With `dates`, what is compared are the `instant`s of strings that are dates, and the bounds are such instants.
    """

    field: str
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None
    dates: bool = False


@travels
class And:
    filters: tuple[Filter, ...]


@travels
class Or:
    filters: tuple[Filter, ...]


@travels
class Not:
    filter: Filter


Filter = Equals | In | Range | And | Or | Not


def matches(filter: Filter, metadata: Metadata) -> bool:
    match filter:
        case And(filters):
            return all(matches(part, metadata) for part in filters)
        case Or(filters):
            return any(matches(part, metadata) for part in filters)
        case Not(inner):
            return not matches(inner, metadata)
        case Equals(field, value):
            return any(_same(stored, value) for stored in field_values(metadata, field))
        case In(field, values):
            return any(_same(stored, value) for stored in field_values(metadata, field) for value in values)
        case Range(field):
            return any(_within(number, filter) for number in range_values(metadata, field, dates=filter.dates))


def range_values(metadata: Metadata, field: str, *, dates: bool) -> list[float]:
    """The field's values that a Range can select, as it compares them."""
    values = field_values(metadata, field)
    if dates:
        return [found for value in values if isinstance(value, str) and (found := instant(value)) is not None]
    return [float(value) for value in values if not isinstance(value, (str, bool))]


def instant(text: str) -> float | None:
    """Seconds since 1970 of an ISO 8601 date (its first moment) or date and time; UTC where no zone is stated. None: it is neither."""
    if not _DATE.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        # Before the year 1 and after 9999, in UTC, there is nothing to compare with.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def field_values(metadata: Metadata, field: str) -> Sequence[MetadataValue]:
    """All values of a field: none, one, or those of its list."""
    value = metadata.get(field, ())
    return value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _same(stored: MetadataValue, wanted: MetadataValue) -> bool:
    # True == 1 in Python, but a flag and a count are different things to the person who stored them.
    return isinstance(stored, bool) == isinstance(wanted, bool) and stored == wanted


def _within(number: float, bounds: Range) -> bool:
    return (
        (bounds.gt is None or number > float(bounds.gt))
        and (bounds.gte is None or number >= float(bounds.gte))
        and (bounds.lt is None or number < float(bounds.lt))
        and (bounds.lte is None or number <= float(bounds.lte))
    )


def parse_filter(sent: object) -> Filter:
    """The filter behind its JSON form. Raises InvalidRequest, naming the path of what is wrong."""
    return _Parser().parse(sent, "filter", 1)


class _Parser:
    def __init__(self) -> None:
        self._nodes = 0

    def parse(self, sent: object, path: str, depth: int) -> Filter:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise InvalidRequest(f"{path}: a filter has at most {MAX_NODES} conditions, nested at most {MAX_DEPTH} deep", field="filter")
        if not isinstance(sent, Mapping) or not sent:
            raise InvalidRequest(f'{path} must be an object such as {{"field": "module", "eq": "gzip"}}, not {brief(sent)}', field="filter")
        node = cast("Mapping[str, Any]", sent)
        keys = set(node)
        if keys == {"not"}:
            return Not(self.parse(node["not"], f"{path}.not", depth + 1))
        if keys in ({"and"}, {"or"}):
            return self._group(next(iter(keys)), node, path, depth)
        return self._leaf(node, keys, path)

    def _group(self, key: str, node: Mapping[str, Any], path: str, depth: int) -> Filter:
        parts = node[key]
        if not isinstance(parts, list) or not parts:
            raise InvalidRequest(f"{path}.{key} must be a list of at least one filter, not {brief(parts)}", field="filter")
        parsed = tuple(self.parse(part, f"{path}.{key}[{i}]", depth + 1) for i, part in enumerate(cast("list[object]", parts)))
        return And(parsed) if key == "and" else Or(parsed)

    def _leaf(self, node: Mapping[str, Any], keys: set[str], path: str) -> Filter:
        field = node.get("field")
        if not isinstance(field, str) or not field:
            raise InvalidRequest(f"{path} must name its field, or be one of and, or, not; it has {sorted(keys)}", field="filter")
        conditions = keys - {"field"}
        if conditions == {"eq"}:
            return Equals(field, _value(node["eq"], f"{path}.eq"))
        if conditions == {"in"}:
            values = node["in"]
            if not isinstance(values, list) or not values:
                raise InvalidRequest(f"{path}.in must be a list of at least one value, not {brief(values)}", field="filter")
            return In(field, tuple(_value(value, f"{path}.in[{i}]") for i, value in enumerate(cast("list[object]", values))))
        if conditions and conditions <= {"gt", "gte", "lt", "lte"}:
            dates = any(isinstance(node[key], str) for key in conditions)
            bound = _instant if dates else _number
            return Range(field, **{key: bound(node[key], f"{path}.{key}") for key in sorted(conditions)}, dates=dates)
        raise InvalidRequest(f"{path} needs one of eq, in, or bounds (gt, gte, lt, lte); it has {sorted(conditions)}", field="filter")


def _value(sent: object, path: str) -> MetadataValue:
    if isinstance(sent, (str, bool)):
        return sent
    return _number(sent, path, "a string, number or boolean")


def _instant(sent: object, path: str) -> float:
    found = instant(sent) if isinstance(sent, str) else None
    if found is None:
        raise InvalidRequest(f"{path} must be a date such as 2024-01-31 or 2024-01-31T09:30:00Z, not {brief(sent)}", field="filter")
    return found


def _number(sent: object, path: str, wanted: str = "a number") -> int | float:
    if isinstance(sent, bool) or not isinstance(sent, (int, float)) or sent != sent or sent in (float("inf"), float("-inf")):
        raise InvalidRequest(f"{path} must be {wanted}, not {brief(sent)}", field="filter")
    if isinstance(sent, int) and abs(sent) > MAX_INTEGER:
        raise InvalidRequest(f"{path} is {sent}; integers lie between -{MAX_INTEGER} and {MAX_INTEGER}", field="filter")
    return sent
