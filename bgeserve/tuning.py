"""How many tokens a batch should have: the fewest whose throughput is within a twentieth of the best, measured on this machine.

Knows budgets, rates and worker layouts. Does not know configs, nor how anything is shown. Only the forwards are timed: a replica tokenises
on a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from bgeserve.settings import ModelSettings
from bgeserve.workload import OutOfMemory, Run, Workers, Workload, batches

TOLERANCE = 0.05
"""What a smaller batch may lose of the best throughput: it costs that much less latency, and the machine's own noise is of this size."""
FEWEST_TOKENS = 128
DOUBLINGS = 10

OnRun = Callable[[int, int, int | None], object]
"""Told of every measurement that begins: its budget, how many are done, how many there will be (None: not known yet)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One budget; medians over the rounds."""

    max_batch_tokens: int
    tokens_per_s: float
    batch_s: float
    share_of_best: float
    """From ratios inside each round, which a machine that is slow for some of the rounds leaves as they are."""


@dataclass(frozen=True, slots=True)
class Tuning:
    measured: Sequence[Measured]
    """By budget, ascending."""
    chosen: int
    out_of_memory_at: int | None
    """The budget that ended the search upwards."""
    speed_ratio: float
    """How many times as fast the machine was in its fastest round as in its slowest: near 1 when nothing else ran."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A way to spread a replica's CPU threads over workers."""

    workers: int
    threads_each: int
    max_batch_tokens: int
    tokens_per_s: float
    share_of_best: float


def tune(workload: Workload, *, rounds: int, run_s: float, on_run: OnRun) -> Tuning:
    """Each budget once a round, for `run_s`. Raises OutOfMemory when not even the smallest budget fits."""
    with Workers(workload.settings, workload.forward) as workers:

        def run(budget: int, part: float) -> Run:
            return workers.run(batches(workload.items_from(part), budget), run_s)

        budgets, first_too_large = _explore(workload.settings.resolved_max_batch_tokens, run, on_run)
        runs, too_large = _run_in_rounds(budgets, rounds, run, on_run)
    return _tuning(runs, too_large or first_too_large)


def _explore(present: int, run: Callable[[int, float], Run], on_run: OnRun) -> tuple[list[int], int | None]:
    """The budgets worth measuring, and the one that did not fit in memory. Warms everything up on its way."""
    rates: dict[int, float] = {}
    for done, budget in enumerate(ladder(present)):
        on_run(budget, done, None)
        try:
            rates[budget] = run(budget, 0).tokens_per_s
        except OutOfMemory:
            if not rates:
                raise
            return list(rates), budget
        if budget > present and not still_gains(rates, lambda again: run(again, 0).tokens_per_s):
            break
    return list(rates), None


def still_gains(rates: dict[int, float], run: Callable[[int], float]) -> bool:
    """Whether one of the last two budgets brought more than the tolerance over the best before them; one alone may be bad luck.

    Before it says no, that best is measured again, for the machine may have grown slower since.
    """
    *before, last, this = rates
    if not before:
        return True
    best = max(before, key=rates.__getitem__)
    enough = max(rates[last], rates[this]) / (1 + TOLERANCE)
    if rates[best] >= enough:
        rates[best] = run(best)
    return rates[best] < enough


def _run_in_rounds(
    budgets: Sequence[int], rounds: int, run: Callable[[int, float], Run], on_run: OnRun
) -> tuple[dict[int, list[Run]], int | None]:
    """Each budget's runs, one a round; and the one that did not fit in memory after all, whose runs are left out as are those above it."""
    runs: dict[int, list[Run]] = {budget: [] for budget in budgets}
    too_large: int | None = None
    for round_ in range(rounds):
        # There and back, so that a machine that grows slower or faster favours no end of the ladder.
        for i, budget in enumerate(sorted(runs, reverse=bool(round_ % 2))):
            if too_large is not None and budget >= too_large:
                continue
            on_run(budget, round_ * len(runs) + i, rounds * len(runs))
            try:
                runs[budget].append(run(budget, round_ / rounds))
            except OutOfMemory:
                too_large = budget
                runs = {fits: done for fits, done in runs.items() if fits < budget}
                if not runs:
                    raise
    return runs, too_large


def ladder(present: int) -> Iterator[int]:
    """Budgets to try, ascending; the present one is among them, to be compared with."""
    yield from sorted({present, *(FEWEST_TOKENS * 2**doubling for doubling in range(DOUBLINGS + 1))})


def _tuning(runs: Mapping[int, Sequence[Run]], out_of_memory_at: int | None) -> Tuning:
    shares = shares_of_best({budget: [run.tokens_per_s for run in of_budget] for budget, of_budget in runs.items()})
    measured = [
        Measured(budget, median(run.tokens_per_s for run in runs[budget]), median(run.batch_s for run in runs[budget]), shares[budget])
        for budget in sorted(runs)
    ]
    of_rounds = [mean(run.tokens_per_s for run in round_) for round_ in zip(*runs.values(), strict=True)]
    return Tuning(measured, choose(shares), out_of_memory_at, max(of_rounds) / min(of_rounds))


def shares_of_best(rates: Mapping[int, Sequence[float]]) -> dict[int, float]:
    """Of each budget, whose rates are one per round: the median of its rates over their round's mean, as a share of the best budget's."""
    means = [mean(of_round) for of_round in zip(*rates.values(), strict=True)]
    relative = {budget: median(rate / mean_ for rate, mean_ in zip(of_budget, means, strict=True)) for budget, of_budget in rates.items()}
    best = max(relative.values())
    return {budget: rate / best for budget, rate in relative.items()}


def choose(shares: Mapping[int, float]) -> int:
    return min(budget for budget, share in shares.items() if share >= 1 - TOLERANCE)


def compare_shapes(workload: Workload, budget: int, *, rounds: int, run_s: float, on_run: OnRun) -> list[Shape]:
    """The replica's CPU threads as many workers, and as one worker with all threads, whose batch is as large as theirs together.

    Nothing when there is one thread, or a GPU computes.
    """
    settings = workload.settings
    threads = threads_each(settings) * settings.resolved_workers
    if threads == 1 or settings.resolved_device != "cpu" or settings.engine != "packed":
        return []
    many, one = (settings.model_copy(update={"cpus": threads, "workers": workers}) for workers in (None, 1))
    budgets = (budget, budget * many.resolved_workers)
    rates: dict[int, list[float]] = {0: [], 1: []}
    with Workers(many, workload.forward) as of_many, Workers(one, workload.forward) as of_one:
        for round_ in range(rounds + 1):  # the first warms up
            for i, workers in enumerate((of_many, of_one)):
                on_run(budgets[i], 2 * round_ + i, 2 * (rounds + 1))
                run = workers.run(batches(workload.items_from(round_ / rounds), budgets[i]), run_s)
                if round_ > 0:
                    rates[i].append(run.tokens_per_s)
    shares = shares_of_best(rates)
    return [
        Shape(shape.resolved_workers, threads_each(shape), budgets[i], median(rates[i]), shares[i]) for i, shape in enumerate((many, one))
    ]


def threads_each(settings: ModelSettings) -> int:
    """As `models.runtime.worker_init` sets them."""
    return max(1, int(settings.cpus) // settings.resolved_workers)
