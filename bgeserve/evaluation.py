"""How well a service finds what judges call relevant: rankings of a data set's queries, and their measures by ir-measures.

Knows the client, not files or terminals. Needs the `eval` extra to measure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from statistics import median
from time import perf_counter

from bgeserve.async_client import AsyncClient
from bgeserve.errors import SettingsError, Unavailable
from bgeserve.splitting import gather_bounded
from bgeserve.types import Leg, Mode
from bgeserve.wire import SearchOptions

DEPTH = 100
"""Documents per query, and candidates per leg."""
RERANKED_DEPTH = 10
"""What a reranked search is asked for: the service reranks at least as many as it is to answer."""
MAX_SEARCHES_IN_FLIGHT = 4
SEARCH_TIMEOUT_S = 300.0

Rankings = Mapping[str, Sequence[str]]
"""Ids of documents, best first, by the query's id."""


@dataclass(frozen=True, slots=True)
class Run:
    """One mode's rankings, the median time of a search, and that of all of them; searches run beside each other."""

    rankings: Rankings
    p50_ms: float
    took_s: float


def require_measures() -> None:
    """Raises SettingsError without the `eval` extra."""
    if find_spec("ir_measures") is None:
        raise SettingsError("this command needs ir-measures: pip install 'bge-serve[eval]'")


def measure(judgements: Mapping[str, Mapping[str, int]], rankings: Rankings) -> dict[str, float]:
    """nDCG@10, R@100 and RR@10: means over all judged queries, of which one without a ranking counts 0."""
    from ir_measures import RR, R, calc_aggregate, nDCG

    # The measures order by score, and equal scores by id: a place in the list has a score of its own.
    scored = {query: {id: -float(place) for place, id in enumerate(ids)} for query, ids in rankings.items()}
    wanted = [nDCG @ 10, R @ 100, RR @ 10]
    values = calc_aggregate(wanted, judgements, scored)
    return {str(one): float(values[one]) for one in wanted}


def modes_of(legs: Sequence[Leg]) -> tuple[Mode, ...]:
    return (*legs, "hybrid")


async def search_all(client: AsyncClient, queries: Mapping[str, str], options: SearchOptions, on_progress: Callable[[int], object]) -> Run:
    """Search for each query, a few at a time, as a job: people who use the service come first. Raises what the service refuses."""
    times_s: list[float] = []

    async def search(text: str) -> list[str]:
        started = perf_counter()
        answer = await client.search_many([text], **{"lane": "bulk", "timeout_s": SEARCH_TIMEOUT_S, **options})
        if answer.degraded:
            raise Unavailable(f"a search was answered without {', '.join(answer.degraded)}, which is down: it cannot be measured")
        (hits,) = answer.results
        times_s.append(perf_counter() - started)
        on_progress(len(times_s))
        return list(dict.fromkeys(hit.id for hit in hits))

    started = perf_counter()
    found = await gather_bounded([partial(search, text) for text in queries.values()], MAX_SEARCHES_IN_FLIGHT)
    return Run(dict(zip(queries, found, strict=True)), 1000 * median(times_s), perf_counter() - started)


def continued(head: Run, whole: Run) -> Run:
    """A reranked run of the first few, followed by what was ranked below them before."""
    rankings = {query: list(dict.fromkeys([*ids, *whole.rankings[query]])) for query, ids in head.rankings.items()}
    return replace(head, rankings=rankings)
