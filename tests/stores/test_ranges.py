"""The keywords of a range are those of exactly the numbers within it."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from bgeserve.filters import Range, matches
from bgeserve.stores.ranges import STEP_BITS, number_terms, range_terms

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63) | st.integers(-3, 3)
BOUNDS = st.fixed_dictionaries({}, optional=dict.fromkeys(("gt", "gte", "lt", "lte"), NUMBERS))


@given(bounds=BOUNDS, number=NUMBERS)
def test_a_number_is_found_by_the_ranges_that_it_lies_in(bounds: dict[str, float], number: float) -> None:
    wanted = Range("year", **bounds)
    assert bool(set(range_terms(wanted)) & set(number_terms("year", float(number)))) == matches(wanted, {"year": number})


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_bounds_are_exact_to_the_last_bit(number: float) -> None:
    below, above = math.nextafter(number, -math.inf), math.nextafter(number, math.inf)
    found = set(range_terms(Range("x", gt=below, lt=above)))
    assert found & set(number_terms("x", number))
    assert not found & set(number_terms("x", above))
    assert not found & set(number_terms("x", below))
    assert not found & set(number_terms("y", number))


@given(bounds=BOUNDS)
def test_a_range_takes_few_keywords(bounds: dict[str, float]) -> None:
    assert len(range_terms(Range("x", **bounds))) <= 2 * (2**STEP_BITS - 1) * 64 // STEP_BITS
