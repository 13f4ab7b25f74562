"""Equal scores in one order, from engines that give them in any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bgeserve.vector_store import ScoredId

MAX_TIED = 4096
"""Equal scores around the last place that are put in order; among more than this the engine's choice stands."""


def best_in_one_order(search: Callable[[int], Sequence[ScoredId]], limit: int) -> list[ScoredId]:
    """The `limit` best of what a search for so many finds, best first; equal scores in the order of their keys."""
    fetch = limit + 16
    while True:
        found = search(fetch)
        # All that tie with the last place must be seen before they are cut.
        if len(found) < fetch or found[-1].score < found[limit - 1].score or fetch >= limit + MAX_TIED:
            break
        fetch = min(4 * fetch, limit + MAX_TIED)
    return best_first(found)[:limit]


def best_first(found: Iterable[ScoredId]) -> list[ScoredId]:
    return sorted(found, key=lambda hit: (-hit.score, hit.key))
