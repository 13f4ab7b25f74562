"""Choosing a batch budget: what is chosen from given rates, where the search ends, and that workers run as a replica's would."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch

from bgeserve.batching.batch_queue import BatchQueue
from bgeserve.batching.fair_lane import Item
from bgeserve.errors import InvalidRequest
from bgeserve.models.embedder import Row
from bgeserve.settings import EmbedderSettings, RerankerSettings
from bgeserve.tuning import choose, compare_shapes, ladder, shares_of_best, still_gains, tune
from bgeserve.workload import OutOfMemory, Workers, Workload, batches, load_workload, sample_texts
from tests.checkpoints import TEXTS, make_bge_m3, make_reranker

SPEEDS = {128: 50.0, 256: 80.0, 512: 96.0, 1024: 100.0, 2048: 99.0}
HUGE = 2**50
"""Numbers that no machine has memory for."""


@dataclass(frozen=True, slots=True)
class Text:
    cost: int
    truncated: bool = False


RAGGED = [Text(Random(n).randrange(3, 120)) for n in range(400)]


def settings(**stated: object) -> EmbedderSettings:
    return EmbedderSettings.model_validate({"model": "none", "max_batch_tokens": 700, "cpus": 2} | stated)


def quickly(workload: Workload, rounds: int = 2) -> tuple[list[int], int | None]:
    """The budgets that were measured, and the one that did not fit."""
    tuning = tune(workload, rounds=rounds, run_s=0.001, on_run=lambda *_: None)
    assert tuning.chosen in [one.max_batch_tokens for one in tuning.measured]
    return [one.max_batch_tokens for one in tuning.measured], tuning.out_of_memory_at


def test_the_fewest_tokens_within_a_twentieth_of_the_best_are_chosen() -> None:
    assert choose(shares_of_best({budget: [speed] * 3 for budget, speed in SPEEDS.items()})) == 512
    assert choose({128: 0.949, 256: 0.951, 512: 1.0}) == 256
    assert choose({128: 1.0, 256: 0.9}) == 128


@pytest.mark.parametrize("slow_rounds", [[], [0], [1, 2], [0, 1, 3]])
def test_rounds_in_which_the_machine_is_slow_change_no_share(slow_rounds: list[int]) -> None:
    rates = {budget: [speed / 2 if n in slow_rounds else speed for n in range(5)] for budget, speed in SPEEDS.items()}
    assert shares_of_best(rates) == pytest.approx({budget: speed / 100 for budget, speed in SPEEDS.items()})


@pytest.mark.parametrize("slow_from", list(SPEEDS))
def test_a_machine_that_grows_slow_within_a_round_changes_no_choice(slow_from: int) -> None:
    """Three medians of plain rates would: the budgets after the change would seem half as fast as those before it."""
    rates = {budget: [speed, speed / 2 if budget >= slow_from else speed, speed / 2] for budget, speed in SPEEDS.items()}
    shares = shares_of_best(rates)
    assert choose(shares) in (512, 1024)
    assert shares[256] < 0.95


def test_the_ladder_climbs_by_doubling_and_has_the_present_budget() -> None:
    assert list(islice(ladder(700), 5)) == [128, 256, 512, 700, 1024]
    assert list(ladder(256))[-1] == 131_072
    assert list(ladder(64))[:2] == [64, 128]
    assert list(ladder(200_000))[-1] == 200_000


@pytest.mark.parametrize(
    ("rates", "measured_again", "goes_on"),
    [
        ([100, 100], None, True),
        ([100, 60, 106], None, True),
        ([100, 106, 60], None, True),
        ([100, 104, 104], 100, False),
        ([100, 104, 104], 99, True),
        ([90, 100, 50, 50], 48, False),
        ([90, 100, 50, 50], 45, True),
    ],
)
def test_the_search_ends_when_two_budgets_in_a_row_bring_nothing(rates: list[float], measured_again: float | None, goes_on: bool) -> None:
    again: list[int] = []

    def run(budget: int) -> float:
        again.append(budget)
        assert measured_again is not None
        return measured_again

    by_budget = dict(enumerate(rates))
    assert still_gains(by_budget, run) is goes_on
    # The best of those before the last two, which the machine's present speed is known by.
    assert again == ([] if measured_again is None else [rates.index(max(rates[:-2]))])


@pytest.mark.parametrize("budget", [1, 100, 700])
def test_batches_are_those_that_the_queue_forms_from_a_backlog(budget: int) -> None:
    queue: BatchQueue[Text] = BatchQueue(max_batch_tokens=budget, bulk_share=0.2)
    for text in RAGGED:
        queue.offer(Item(text, text.cost))
    formed = [[item.payload for item in batch] for batch in iter(queue.next_batch, [])]
    *whole, _ = formed  # the last one is what was left
    assert list(islice(batches(RAGGED, budget), len(whole))) == whole


def test_each_worker_has_its_own_thread_with_its_share_of_the_cores() -> None:
    seen: set[tuple[int, int]] = set()

    def forward(items: list[Text]) -> None:
        seen.add((threading.get_ident(), torch.get_num_threads()))

    before = torch.get_num_threads()
    with Workers(settings(cpus=6, workers=3), forward) as workers:
        for _ in range(3):
            run = workers.run(batches(RAGGED, 700), 0.001)
            assert run.tokens_per_s > 0
            assert run.batch_s > 0
    assert len(seen) == 3
    assert {threads for _, threads in seen} == {2}
    assert torch.get_num_threads() == before


def gpu_runs_out(items: list[Text]) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def cpu_runs_out(items: list[Text]) -> None:
    torch.empty(HUGE)


@pytest.mark.parametrize("runs_out", [gpu_runs_out, cpu_runs_out])
def test_running_out_of_memory_ends_the_search_upwards(runs_out: Callable[[list[Text]], None]) -> None:
    def forward(items: list[Text]) -> None:
        if sum(item.cost for item in items) > 700:
            runs_out(items)

    assert quickly(Workload(settings(), forward, RAGGED)) == ([128, 256, 512, 700], 1024)
    with pytest.raises(OutOfMemory):
        quickly(Workload(settings(), runs_out, RAGGED))


def test_a_budget_that_fitted_once_and_then_no_more_is_left_out() -> None:
    searching = True

    def forward(items: list[Text]) -> None:
        if sum(item.cost for item in items) > (700 if searching else 512):
            gpu_runs_out(items)

    def on_run(budget: int, done: int, total: int | None) -> None:
        nonlocal searching
        searching = total is None

    measured = tune(Workload(settings(), forward, RAGGED), rounds=2, run_s=0.001, on_run=on_run)
    assert [one.max_batch_tokens for one in measured.measured] == [128, 256, 512]
    assert measured.out_of_memory_at == 700


def test_what_else_goes_wrong_is_not_taken_for_memory() -> None:
    def forward(items: list[Text]) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        quickly(Workload(settings(), forward, RAGGED))


def test_a_replicas_threads_as_many_workers_and_as_one() -> None:
    largest: dict[int, int] = {}

    def forward(items: list[Text]) -> None:
        threads = torch.get_num_threads()
        largest[threads] = max(largest.get(threads, 0), sum(item.cost for item in items))

    def shapes(**stated: object) -> list[tuple[int, int, int]]:
        compared = compare_shapes(Workload(settings(**stated), forward, RAGGED), 500, rounds=1, run_s=0.001, on_run=lambda *_: None)
        assert all(shape.tokens_per_s > 0 for shape in compared)
        return [(shape.workers, shape.threads_each, shape.max_batch_tokens) for shape in compared]

    # 0.4 CPUs are what Ray keeps free; the workers are what computes.
    assert shapes(cpus=0.4, workers=2) == shapes(cpus=2) == [(2, 1, 500), (1, 2, 1000)]
    assert 350 < largest[1] <= 500 < largest[2] <= 1000
    assert shapes(cpus=8) == [(4, 2, 500), (1, 8, 2000)]
    assert shapes(cpus=1) == []
    assert shapes(cpus=8, gpus=1) == []
    assert shapes(cpus=8, engine="flagembedding") == []


def test_an_embedder_gives_every_output_and_a_reranker_scores_pairs(tmp_path: Path) -> None:
    embedder = load_workload(EmbedderSettings(model=str(make_bge_m3(tmp_path / "m3")), dtype="float32"), TEXTS)
    (row, *_) = embedder.forward([*embedder.items])  # type: ignore[misc]
    assert isinstance(row, Row)
    assert all(output is not None for output in (row.dense, row.sparse, row.multi_vector))
    reranker = load_workload(RerankerSettings(model=str(make_reranker(tmp_path / "r")), dtype="float32"), TEXTS)
    assert len(reranker.items) == len(TEXTS)
    scores = {round(pair.score, 3) for pair in reranker.forward([*reranker.items])}  # type: ignore[attr-defined]
    assert len(scores) > len(TEXTS) // 2
    assert quickly(embedder, rounds=1)[0][:4] == [128, 256, 512, 700]


def test_texts_come_shuffled_and_the_same_each_time(tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"id": str(n), "text": f"text {n}"}) + "\n" for n in range(50)))
    texts = sample_texts(str(source))
    assert texts == sample_texts(str(source))
    assert sorted(texts) == sorted(f"text {n}" for n in range(50)) != texts
    source.write_text("")
    with pytest.raises(InvalidRequest, match=r"texts\.jsonl has no texts"):
        sample_texts(str(source))
