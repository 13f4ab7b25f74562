"""The executor: every future ends, once, with the right thing, whatever the model does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager
from math import inf
from random import Random

import pytest

from bgeserve.batching.executor import Computed, Executor
from bgeserve.errors import ComputeError, DeadlineExceeded, ReplicaFull, Unavailable
from bgeserve.model_load import ModelLoad
from bgeserve.observe import Observer
from bgeserve.types import Lane

WAIT_S = 20.0


@contextmanager
def running(
    compute: Callable[[list[int]], list[int]],
    *,
    workers: int = 2,
    reserved_workers: int = 0,
    max_queue_s: float = 60,
    wedged_after_s: float = 60,
    observer: Observer | None = None,
) -> Iterator[Executor[int, int]]:
    executor = Executor(
        compute,
        max_batch_tokens=100,
        bulk_share=0.2,
        max_queue_s=max_queue_s,
        workers=workers,
        side_by_side=workers,
        reserved_workers=reserved_workers,
        wedged_after_s=wedged_after_s,
        observer=observer,
    )
    try:
        yield executor
    finally:
        executor.close()


def double(batch: list[int]) -> list[int]:
    return [2 * n for n in batch]


class Gate:
    """A model that computes only while it is open, and remembers its batches."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, batch: list[int]) -> list[int]:
        self.batches.append(batch)
        self.entered.set()
        assert self.opened.wait(WAIT_S)
        return double(batch)


def submit(
    executor: Executor[int, int],
    numbers: list[int],
    cost: int = 10,
    deadline: float = inf,
    lane: Lane = "interactive",
    tenant: str = "",
) -> Future[Computed[int]]:
    return executor.submit(numbers, [cost] * len(numbers), lane=lane, deadline=deadline, tenant=tenant)


def test_each_call_gets_its_own_results_in_its_own_order() -> None:
    random = Random(0)
    with running(double) as executor:
        calls = [[random.randrange(1000) for _ in range(random.randrange(8))] for _ in range(300)]
        futures = [
            executor.submit(call, [random.randrange(1, 150) for _ in call], lane="bulk" if i % 3 else "interactive", deadline=inf)
            for i, call in enumerate(calls)
        ]
        assert [future.result(WAIT_S).results for future in futures] == [double(call) for call in calls]


def test_batches_form_from_backlog_and_a_lone_item_starts_at_once() -> None:
    gate = Gate()
    with running(gate, workers=1) as executor:
        futures = [submit(executor, [0])]
        assert gate.entered.wait(WAIT_S)
        futures += [submit(executor, [n]) for n in range(1, 13)]
        gate.opened.set()
        wait(futures, WAIT_S)
    assert gate.batches == [[0], [*range(1, 11)], [11, 12]]


def test_a_small_backlog_is_shared_out_among_idle_workers() -> None:
    gate = Gate()
    with running(gate) as executor:
        futures = [submit(executor, [1, 2, 3, 4])]
        while len(gate.batches) < 2:
            time.sleep(0.001)
        gate.opened.set()
        wait(futures, WAIT_S)
    assert sorted(gate.batches) == [[1, 2], [3, 4]]


def test_out_of_memory_halves_the_batch_and_only_a_poison_item_fails() -> None:
    largest = 0

    def little_memory(batch: list[int]) -> list[int]:
        nonlocal largest
        if 13 in batch:
            raise ValueError("thirteen")
        if len(batch) > 2:
            raise MemoryError
        largest = max(largest, len(batch))
        return double(batch)

    with running(little_memory, workers=1) as executor:
        futures = [submit(executor, [n]) for n in range(20)]
        wait(futures, WAIT_S)
        with pytest.raises(ComputeError, match=r"this text alone: builtins.ValueError: \(message withheld"):
            futures.pop(13).result()
        assert [future.result().results for future in futures] == [[2 * n] for n in range(20) if n != 13]
        assert 1 <= largest <= 2
        executor.check_health()


def test_a_call_fails_as_a_whole_and_the_rest_of_it_is_not_computed() -> None:
    computed: list[int] = []

    def poisoned(batch: list[int]) -> list[int]:
        if -1 in batch:
            raise RuntimeError("poison")
        computed.extend(batch)
        return double(batch)

    with running(poisoned, workers=1) as executor:
        future = submit(executor, [-1, *range(40)], cost=60)
        with pytest.raises(ComputeError, match="RuntimeError"):
            future.result(WAIT_S)
        assert submit(executor, [7]).result(WAIT_S).results == [14]
    assert len(computed) < 40


def test_cancelled_work_is_taken_back() -> None:
    gate = Gate()
    with running(gate, workers=1) as executor:
        first = submit(executor, [0])
        assert gate.entered.wait(WAIT_S)
        abandoned, kept = submit(executor, [1, 2, 3]), submit(executor, [4])
        assert abandoned.cancel()
        gate.opened.set()
        assert kept.result(WAIT_S).results == [8]
        assert first.result(WAIT_S).results == [0]
        with pytest.raises(CancelledError):
            abandoned.result(WAIT_S)
    assert gate.batches == [[0], [4]]


def test_a_call_cancelled_while_it_is_computed_disturbs_nobody() -> None:
    gate = Gate()
    with running(gate, workers=1) as executor:
        first = submit(executor, [0])
        assert gate.entered.wait(WAIT_S)
        assert first.cancel()
        gate.opened.set()
        assert submit(executor, [1]).result(WAIT_S).results == [2]
        executor.check_health()


def test_what_passed_its_deadline_is_not_computed() -> None:
    gate = Gate()
    with running(gate, workers=1) as executor:
        first = submit(executor, [0])
        assert gate.entered.wait(WAIT_S)
        late = submit(executor, [1], deadline=time.monotonic())
        gate.opened.set()
        with pytest.raises(DeadlineExceeded):
            late.result(WAIT_S)
        assert first.result(WAIT_S).results == [0]
    assert gate.batches == [[0]]


def test_a_full_queue_refuses_with_its_backlog_and_accepts_again() -> None:
    with running(slow, workers=1, max_queue_s=0.2) as executor:
        submit(executor, [0] * 50).result(WAIT_S)  # measures the speed: about 10 items in 20 ms
        accepted: list[Future[Computed[int]]] = []

        def flood() -> None:
            for _ in range(1000):
                accepted.append(submit(executor, [1] * 10))

        with pytest.raises(ReplicaFull, match=r"tokens are ahead .* accepts 0.2 s, and 100 more came") as refused:
            flood()
        assert refused.value.retry_after_s is not None
        assert 0 < refused.value.retry_after_s < 0.2
        assert accepted
        wait(accepted, WAIT_S)
        assert submit(executor, [1] * 10).result(WAIT_S).results == [2] * 10


def slow(batch: list[int]) -> list[int]:
    """About 5,000 tokens a second."""
    time.sleep(0.002 * len(batch))
    return double(batch)


def fill(executor: Executor[int, int], lane: Lane, tenant: str = "") -> list[Future[Computed[int]]]:
    """Calls of 100 tokens until the executor refuses one."""
    submit(executor, [0] * 50, lane=lane).result(WAIT_S)  # measures the speed
    accepted: list[Future[Computed[int]]] = []
    try:
        for _ in range(1000):
            accepted.append(submit(executor, [1] * 10, lane=lane, tenant=tenant))
    except ReplicaFull:
        return accepted
    pytest.fail("it accepted everything")


def test_a_queue_full_of_bulk_accepts_queries_and_a_tenant_that_fills_it_locks_nobody_out() -> None:
    with running(slow, workers=1, max_queue_s=0.3) as executor:
        futures = fill(executor, "bulk", "flood")
        futures.append(submit(executor, [1] * 10, lane="bulk", tenant="other"))
        futures.append(submit(executor, [1] * 10, lane="interactive", tenant="flood"))
        with pytest.raises(ReplicaFull):
            submit(executor, [1] * 10, lane="bulk", tenant="flood")
        with pytest.raises(ReplicaFull):
            executor.check_room("bulk", "flood")
        executor.check_room("bulk", "other")
        wait(futures, WAIT_S)


def test_a_refusal_says_how_long_it_takes_until_what_is_ahead_is_done() -> None:
    with running(slow, workers=1, max_queue_s=0.5) as executor:
        accepted = fill(executor, "interactive")
        with pytest.raises(ReplicaFull) as refused:
            submit(executor, [1] * 10)
        at = time.monotonic()
        wait(accepted, WAIT_S)
        took_s = time.monotonic() - at
        assert refused.value.retry_after_s is not None
        assert took_s / 2 <= refused.value.retry_after_s <= took_s * 2


def test_reserved_workers_leave_bulk_to_the_others() -> None:
    gate = Gate()
    with running(gate, workers=2, reserved_workers=1) as executor:
        bulk = [submit(executor, [n], cost=100, lane="bulk") for n in range(5)]
        assert gate.entered.wait(WAIT_S)
        query = submit(executor, [100])
        while len(gate.batches) < 2:
            time.sleep(0.001)
        assert gate.batches == [[0], [100]]
        gate.opened.set()
        wait([*bulk, query], WAIT_S)


def test_an_answer_says_how_long_it_waited_and_was_computed() -> None:
    with running(slow, workers=1) as executor:
        first, second = submit(executor, [1] * 10), submit(executor, [1] * 10)
        assert first.result(WAIT_S).compute_s >= 0.02
        assert second.result(WAIT_S).wait_s >= 0.02


def test_what_is_measured_adds_up() -> None:
    found: list[tuple[str, float, dict[str, str]]] = []
    with running(double, workers=1, observer=Observer(lambda kind, name, value, tags: found.append((name, value, tags)))) as executor:
        futures = [executor.submit([1, 2, 3], [10, 20, 40], lane="interactive", deadline=inf)]
        futures += [submit(executor, [1], lane="bulk"), submit(executor, [1], lane="bulk", deadline=0)]
        wait(futures, WAIT_S)

    def total(name: str, **tags: str) -> float:
        return sum(value for one, value, its in found if one == name and its.items() >= tags.items())

    assert (total("tokens_total", lane="interactive"), total("tokens_total", lane="bulk")) == (70, 10)
    assert (total("texts_total", lane="interactive"), total("texts_total", lane="bulk")) == (3, 1)
    assert total("expired_total", lane="bulk") == 1
    assert total("batch_tokens") == 80
    assert 0 <= total("padding_avoided_tokens_total") <= 3 * 40 - 70


def test_an_oversized_call_is_accepted_when_nothing_is_ahead() -> None:
    with running(double, max_queue_s=1e-9) as executor:
        submit(executor, [1]).result(WAIT_S)
        assert submit(executor, [3], cost=100_000).result(WAIT_S).results == [6]


def test_a_wedged_forward_is_unhealthy() -> None:
    gate = Gate()
    with running(gate, workers=1, wedged_after_s=0.05) as executor:
        executor.check_health()
        future = submit(executor, [1])
        assert gate.entered.wait(WAIT_S)
        time.sleep(0.1)
        with pytest.raises(ComputeError, match=r"running for more than 0.05 s"):
            executor.check_health()
        gate.opened.set()
        assert future.result(WAIT_S).results == [2]
        executor.check_health()


def test_closing_ends_every_future() -> None:
    gate = Gate()
    with running(gate, workers=1) as executor:
        first = submit(executor, [0])
        assert gate.entered.wait(WAIT_S)
        waiting = submit(executor, [1])
        closer = threading.Thread(target=executor.close)
        closer.start()
        with pytest.raises(Unavailable):
            waiting.result(WAIT_S)
        gate.opened.set()
        assert first.result(WAIT_S).results == [0]
        closer.join(WAIT_S)
        with pytest.raises(Unavailable):
            submit(executor, [2])


def test_random_cancellation_and_failure_leave_no_future_open() -> None:
    random = Random(1)

    def moody(batch: list[int]) -> list[int]:
        if any(n % 17 == 0 for n in batch):
            raise RuntimeError("17")
        return double(batch)

    with running(moody) as executor:
        calls: list[tuple[list[int], Future[Computed[int]]]] = []
        for _ in range(400):
            numbers = [random.randrange(1, 500) for _ in range(random.randrange(1, 6))]
            deadline = time.monotonic() + random.choice([0.0, 1000.0])
            calls.append((numbers, submit(executor, numbers, cost=random.randrange(1, 120), deadline=deadline)))
            if random.random() < 0.3:
                random.choice(calls)[1].cancel()
        for numbers, future in calls:
            try:
                assert future.result(WAIT_S).results == double(numbers)
            except ComputeError:
                assert any(n % 17 == 0 for n in numbers)
            except (CancelledError, DeadlineExceeded):
                pass
        assert executor.backlog_s == 0


def test_its_load_counts_what_was_computed_refused_and_late() -> None:
    gate = Gate()
    with running(gate, workers=1, max_queue_s=0.5) as executor:
        assert executor.current_load() == ModelLoad()
        gate.opened.set()
        assert submit(executor, [1], cost=10).result(WAIT_S).results == [2]
        gate.entered.clear()
        gate.opened.clear()
        submit(executor, [2], cost=10**9)
        assert gate.entered.wait(WAIT_S)
        with pytest.raises(ReplicaFull):
            submit(executor, [3])
        load = executor.current_load()
        assert (load.tokens_total, load.refused_total, load.expired_total) == (10, 1, 0)
        assert load.tokens_per_s > 0
        assert load.backlog_s > 0.5
        gate.opened.set()
