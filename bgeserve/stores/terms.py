"""Metadata as keywords: every (field, value) pair is one, so that one index serves all equality. Knows no engine.

A flag stays apart from a count, integers of 64 bits stay exact, and a field may have any name: what engines make of such values differs.
"""

from __future__ import annotations

from hashlib import blake2b

from bgeserve.filters import field_values
from bgeserve.types import Metadata, MetadataValue

TERM_LENGTH = 32
"""Characters, all of them hexadecimal."""


def terms(metadata: Metadata) -> list[str]:
    return [term(field, value) for field in metadata for value in field_values(metadata, field)]


def term(field: str, value: MetadataValue) -> str:
    return keyword(field, _canonical(value))


def keyword(field: str, text: str) -> str:
    # Hashed, since an index entry should not grow with a long value; 128 bits do not collide.
    named = f"{len(field)}:{field}{text}"
    return blake2b(named.encode("utf-8", "surrogatepass"), digest_size=TERM_LENGTH // 2).hexdigest()


def _canonical(value: MetadataValue) -> str:
    if isinstance(value, str):
        return f"s{value}"
    if isinstance(value, bool):
        return f"b{value:d}"
    # 1 and 1.0 are equal, as in `matches`.
    return f"n{int(value)}" if value == int(value) else f"n{value!r}"
