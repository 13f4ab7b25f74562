"""What every scenario needs: the texts, the systems one at a time, loads of a stated shape, and a line that says how far it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil
from statistics import median
from time import sleep

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.serving.environments import Unavailable
from benchmarks.serving.numbered import NumberedTexts
from benchmarks.serving.plan import Closed, Outcome, Plan, Record, Request
from benchmarks.serving.summary import check_counts
from benchmarks.serving.systems import Place, System
from benchmarks.serving.targets import Server, Target

PREPARED_TOK_S = 10_000 * (os.cpu_count() or 1)
"""More than these cores compute of a small model: a closed loop that runs out of requests ends early."""
WARM_UP_CLIENTS, WARM_UP_S = 4, 3.0
SETTLE_S = 0.5
"""After a pause Ray's processes first tell each other that they are alive."""


@dataclass(frozen=True, slots=True)
class Options:
    skip: Sequence[str]
    """Names of systems that are not measured."""
    clients: Sequence[int]
    texts_per_request: Sequence[int]
    seconds: float
    """Of one run of a closed or open loop."""
    rounds: int
    pairs: int
    """Rounds where the claim is about a few percent."""
    requests: int
    """Of the memory scenario."""
    max_answer_s: float
    """A cell in which one answer would take longer is left out."""


class Fleet:
    """The systems that have started, all held still but the one that is measured."""

    def __init__(self, ours: frozenset[str]) -> None:
        self.targets: list[Target] = []
        self.skipped: dict[str, str] = {}
        self._ours = ours
        self._client_share = 0.0

    def run(self, target: Target, plan: Plan) -> Record:
        """Raises Miscounted when one of ours counted other tokens than were sent."""
        target.program.resume()
        sleep(SETTLE_S)
        try:
            record = target.run(plan)
        finally:
            target.program.pause()
        if target.name in self._ours:
            check_counts(target.name, [outcome for outcomes in record.outcomes.values() for outcome in outcomes])
        if isinstance(target, Server):
            self._client_share = max(self._client_share, record.client_cpu_s / max(record.seconds, WARM_UP_S))
        return record

    def run_one(self, target: Target, load: Closed) -> Sequence[Outcome]:
        return self.run(target, {"all": load}).outcomes["all"]

    def notes(self) -> list[str]:
        skipped = [f"{name}: skipped, {reason}" for name, reason in self.skipped.items()]
        return [*skipped, f"the client took at most {self._client_share:.1%} of one core"]


class Bench:
    def __init__(self, options: Options, place: Place, texts: NumberedTexts, console: Console) -> None:
        self.options = options
        self.texts = texts
        self.queries = texts.queries()
        self._place = place
        self._console = console

    @contextmanager
    def started(self, systems: Sequence[System], warm_up: Callable[[Target], Closed] | None = None) -> Iterator[Fleet]:
        """Of these, those that are not skipped and that can be had here, warm and paused. All of them end with the block."""
        warm_up = warm_up or (lambda target: self.closed(target, WARM_UP_CLIENTS, 1, seconds=WARM_UP_S))
        chosen = [system for system in systems if system.name not in self.options.skip]
        fleet = Fleet(frozenset(system.name for system in chosen if system.is_ours))
        with ExitStack() as stack:
            with self.progress("starting", len(chosen)) as step:
                for system in chosen:
                    step(system.name)
                    try:
                        target = system.start(self._place)
                    except Unavailable as reason:
                        fleet.skipped[system.name] = str(reason)
                        continue
                    stack.callback(target.program.stop)
                    fleet.targets.append(target)
                    fleet.run_one(target, warm_up(target))
            yield fleet

    @contextmanager
    def progress(self, title: str, total: int) -> Generator[Callable[[str], None]]:
        """Drawn when something happens, not on a timer: the cores belong to what is measured."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, auto_refresh=False, transient=True) as bar:
            task = bar.add_task(title, total=total)
            done = -1

            def step(what: str) -> None:
                nonlocal done
                done += 1
                bar.update(task, completed=done, description=f"{title}: {what}", refresh=True)

            yield step

    def closed(
        self, target: Target, clients: int, texts_per_request: int, *, at: int = 0, seconds: float | None = None, **headers: str
    ) -> Closed:
        """Enough requests for the time, and one for each client at least."""
        seconds = self.options.seconds if seconds is None else seconds
        tokens = self.texts.mean_tokens * texts_per_request
        count = max(2 * clients, ceil(seconds * PREPARED_TOK_S / tokens))
        return Closed(requests_of(target, self.texts, count, texts_per_request, at=at, **headers), clients, seconds)


def requests_of(
    target: Target, texts: NumberedTexts, count: int, texts_per_request: int = 1, *, at: int = 0, **headers: str
) -> list[Request]:
    taken = texts.take(count * texts_per_request, at)
    return [target.embed(taken[i : i + texts_per_request], **headers) for i in range(0, len(taken), texts_per_request)]


def in_turns(targets: Sequence[Target], round_: int) -> Sequence[Target]:
    """Each round the other way round, so that a machine that slows down steadily favours none."""
    return targets if round_ % 2 == 0 else list(reversed(targets))


def median_of_ratios(over: Sequence[float], under: Sequence[float]) -> float:
    """Round by round; NaN when either was not measured."""
    pairs = [a / b for a, b in zip(over, under, strict=False) if b]
    return median(pairs) if pairs else float("nan")
