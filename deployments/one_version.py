"""The answers of a request's calls, all of one version of the model: while one takes another's place, they meet both.

Knows that answers have versions. Does not know what is asked, nor of whom.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from bgeserve.errors import FingerprintMismatch

T = TypeVar("T")

ROUNDS = 24
"""How often what met another version than the rest is asked again. Of two calls, every other round brings them together when both versions
answer alike often, and of many calls each round half of what is missing."""
IN_VAIN_ROUNDS = 3
"""After so many that brought nothing of the version of most answers, which may be gone, one is for the other."""
ROUND_PAUSE_S = 0.1
"""At once, the router would choose as before."""


async def of_one_version(
    answers: Sequence[T], version: Callable[[T], str], ask_again: Callable[[Sequence[int]], Awaitable[Sequence[T]]]
) -> list[T]:
    """The answers, or for some of them others, which `ask_again` brings for their indices.

    Raises FingerprintMismatch when they are never all of one version, and what `ask_again` raises.
    """
    had: dict[str, dict[int, T]] = {}
    for index, answer in enumerate(answers):
        had.setdefault(version(answer), {})[index] = answer
    rounds = in_vain = 0
    while (whole := _whole(had, len(answers))) is None:
        if rounds == ROUNDS:
            raise FingerprintMismatch(f"the model was replaced while this request ran ({', '.join(sorted(had))}): send it again")
        if rounds:
            await asyncio.sleep(ROUND_PAUSE_S)
        rounds += 1
        of_most, of_fewer, *_ = sorted(had, key=lambda version: -len(had[version]))
        wanted = of_fewer if in_vain == IN_VAIN_ROUNDS else of_most
        missing = [index for index in range(len(answers)) if index not in had[wanted]]
        for index, answer in zip(missing, await ask_again(missing), strict=True):
            had.setdefault(version(answer), {})[index] = answer
        in_vain = 0 if wanted == of_fewer or any(index in had[wanted] for index in missing) else in_vain + 1
    return whole


def _whole(had: Mapping[str, Mapping[int, T]], count: int) -> list[T] | None:
    for of_one in had.values():
        if len(of_one) == count:
            return [of_one[index] for index in range(count)]
    return None
