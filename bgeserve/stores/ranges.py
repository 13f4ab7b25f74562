"""Ranges of numbers, and of dates as instants, as keywords: for an engine that can only ask whether a document has one of several. Knows no
engine.

A number's 64 bits, put into the order of numbers, are cut after 4, 8, ... 64 bits: each prefix is a keyword, and names all numbers that
begin with it. A range is the few prefixes that cover it and nothing else, at most 30 of each length.
"""

from __future__ import annotations

import math
import struct

from bgeserve.filters import Range, range_values
from bgeserve.stores.terms import keyword, terms
from bgeserve.types import Metadata

STEP_BITS = 4
_BITS = 64
_SIGN = 1 << (_BITS - 1)
_ALL = (1 << _BITS) - 1


def filterable(metadata: Metadata) -> list[str]:
    """The keywords of a document: those of its values (`terms.py`) and of its numbers and dates, each once."""
    ranges = [
        found
        for field in metadata
        for dates in (False, True)
        for number in range_values(metadata, field, dates=dates)
        for found in number_terms(field, number, dates=dates)
    ]
    return list(dict.fromkeys([*terms(metadata), *ranges]))


def number_terms(field: str, number: float, *, dates: bool = False) -> list[str]:
    bits = _ordered_bits(number)
    return [_prefix(field, dates, bits, shift) for shift in range(0, _BITS, STEP_BITS)]


def range_terms(bounds: Range) -> list[str]:
    """Keywords of which a document has one exactly when one of its numbers lies within the bounds."""
    low, high = lowest(bounds), highest(bounds)
    first, last = _ordered_bits(low), _ordered_bits(high)
    found: list[str] = []
    shift = 0
    while first <= last:
        # What does not fill a longer prefix at either end is named here; the rest is left to the shorter ones.
        size, width = 1 << shift, 1 << (shift + STEP_BITS)
        while first <= last and first % width:
            found.append(_prefix(bounds.field, bounds.dates, first, shift))
            first += size
        while first <= last and (last + 1) % width:
            found.append(_prefix(bounds.field, bounds.dates, last, shift))
            last -= size
        shift += STEP_BITS
    return found


def _prefix(field: str, dates: bool, bits: int, shift: int) -> str:
    return keyword(field, f"{'d' if dates else 'r'}{shift}:{bits >> shift:x}")


def lowest(bounds: Range) -> float:
    """The least number that lies within the lower bounds."""
    above = -math.inf if bounds.gt is None else math.nextafter(float(bounds.gt), math.inf)
    return max(above, -math.inf if bounds.gte is None else float(bounds.gte))


def highest(bounds: Range) -> float:
    """The greatest number that lies within the upper bounds."""
    below = math.inf if bounds.lt is None else math.nextafter(float(bounds.lt), -math.inf)
    return min(below, math.inf if bounds.lte is None else float(bounds.lte))


def _ordered_bits(number: float) -> int:
    """The bits of a float64 such that greater numbers have greater bits; 0.0 and -0.0 are one number."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", number + 0.0))
    return bits ^ _ALL if bits & _SIGN else bits | _SIGN
