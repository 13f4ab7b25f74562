"""The rules of the queue, as properties over random schedules."""

from __future__ import annotations

import os
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bgeserve.batching.batch_queue import BatchQueue
from bgeserve.batching.fair_lane import Item
from bgeserve.types import LANES, Lane

BUDGET = 100
lanes = st.sampled_from(LANES)
LONGEST = 250
TENANTS = ("a", "b", "c")
SCHEDULES = int(os.environ.get("BGE_SERVE_TEST_SCHEDULES", "200"))
"""10,000 take some minutes."""
costs = st.integers(1, LONGEST)


def queue_of(*items: Item[str], bulk_share: float = 0.2) -> BatchQueue[str]:
    queue: BatchQueue[str] = BatchQueue(max_batch_tokens=BUDGET, bulk_share=bulk_share)
    for item in items:
        queue.offer(item)
    return queue


def test_a_batch_takes_what_fits_in_order_of_arrival_and_ends_before_the_first_that_does_not() -> None:
    items = [Item("a", 40), Item("b", 50), Item("long", 60), Item("c", 10)]
    queue = queue_of(*items)
    assert queue.next_batch() == items[:2]  # c would fit, but would overtake the long one
    assert queue.next_batch() == items[2:]
    assert queue.next_batch() == []


def test_an_item_above_the_budget_runs_alone() -> None:
    small, huge, last = Item("small", 10), Item("huge", 5 * BUDGET), Item("last", 10)
    queue = queue_of(small, huge, last)
    assert [queue.next_batch() for _ in range(3)] == [[small], [huge], [last]]


def test_takers_share_a_small_backlog_evenly_and_a_large_one_by_budgets() -> None:
    items = [Item(str(n), 10) for n in range(6)]
    queue = queue_of(*items)
    assert queue.next_batch(takers=2) == items[:3]
    assert queue.next_batch(takers=1) == items[3:]
    large = [Item(str(n), 10) for n in range(50)]
    queue = queue_of(*large)
    assert queue.next_batch(takers=2) == large[:10]


def test_interactive_goes_first_and_never_shares_a_batch_with_bulk() -> None:
    bulk, query = Item("bulk", 10, "bulk"), Item("query", 10)
    queue = queue_of(bulk, query)
    assert queue.next_batch() == [query]
    assert queue.next_batch() == [bulk]


@given(share=st.floats(0.05, 0.5), cost=st.integers(1, BUDGET))
@settings(deadline=None)
def test_bulk_gets_its_share_while_interactive_never_runs_dry(share: float, cost: int) -> None:
    queue = queue_of(bulk_share=share)
    served = dict.fromkeys(LANES, 0)
    for _ in range(600):
        while queue.lane_tokens("interactive") < BUDGET or queue.lane_tokens("bulk") < BUDGET:
            for lane in LANES:
                queue.offer(Item("x", cost, lane))
        batch = queue.next_batch()
        served[batch[0].lane] += sum(item.cost for item in batch)
    # Bulk runs whole batches once they are owed, so it lags its share by at most one of them each time.
    owed = share * sum(served.values())
    assert owed - 2 * BUDGET / (1 - share) <= served["bulk"] <= owed + 2 * BUDGET


def test_an_idle_lane_saves_up_no_claim() -> None:
    queue = queue_of(bulk_share=0.5)
    for _ in range(50):
        queue.offer(Item("query", BUDGET))
        queue.next_batch()
    bulk, query = Item("bulk", 10, "bulk"), Item("query", 10)
    queue.offer(bulk)
    queue.offer(query)
    assert queue.next_batch() == [query]


def test_expired_and_cancelled_items_are_never_in_a_batch() -> None:
    late, gone, kept = Item("late", 10, deadline=5.0), Item("gone", 10), Item("kept", 10, deadline=7.0)
    queue = queue_of(late, gone, kept)
    assert queue.cancel(gone)
    assert not queue.cancel(gone)
    assert queue.expire(4.9) == []
    assert queue.expire(5.0) == [late]
    assert queue.next_batch() == [kept]
    assert queue.queued_tokens == 0


def test_what_cannot_be_queued_is_refused() -> None:
    item = Item("x", 1)
    queue = queue_of(item)
    with pytest.raises(ValueError, match="already"):
        queue.offer(item)
    with pytest.raises(ValueError, match="at least one token, not 0"):
        queue.offer(Item("free", 0))


class AnySchedule(RuleBasedStateMachine):
    """Whatever happens in whatever order: nothing lost, nothing twice, order kept, budget kept, the counts right, nobody starved."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: BatchQueue[int] = BatchQueue(max_batch_tokens=BUDGET, bulk_share=0.2)
        self.waiting: dict[Lane, list[Item[int]]] = {"interactive": [], "bulk": []}
        self.now = 0.0
        self.bulk_passed_over_tokens = 0
        self.passed_over_tokens: dict[Item[int], int] = {}
        """Of the first item of each tenant in each lane: what the lane's other tenants have been given since it is the first."""

    @rule(lane=lanes, tenant=st.sampled_from(TENANTS), cost=costs, wait=st.one_of(st.just(inf), st.floats(0, 20)))
    def offer(self, lane: Lane, tenant: str, cost: int, wait: float) -> None:
        item = Item(0, cost, lane, self.now + wait, tenant)
        self.queue.offer(item)
        self.waiting[lane].append(item)

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from([item for lane in LANES for item in self.waiting[lane]]))
        assert self.queue.cancel(item)
        assert not self.queue.cancel(item)
        self.waiting[item.lane].remove(item)

    @rule(passed=st.floats(0, 10))
    def expire(self, passed: float) -> None:
        self.now += passed
        expected = {id(item) for lane in LANES for item in self.waiting[lane] if item.deadline <= self.now}
        assert {id(item) for item in self.queue.expire(self.now)} == expected
        for lane in LANES:
            self.waiting[lane] = [item for item in self.waiting[lane] if item.deadline > self.now]

    @rule(takers=st.integers(1, 4))
    def next_batch(self, takers: int) -> None:
        both = all(self.waiting.values())
        batch = self.queue.next_batch(takers)
        assert bool(batch) == any(self.waiting.values())
        self.check_batch(batch, takers)
        interactive_tokens = sum(item.cost for item in batch if item.lane == "interactive")
        self.bulk_passed_over_tokens = self.bulk_passed_over_tokens + interactive_tokens if both and interactive_tokens else 0
        # A share of 0.2 owes bulk a batch after four budgets of interactive tokens, plus what an item above the budget overshoots.
        assert self.bulk_passed_over_tokens <= 4 * BUDGET + 2 * max(LONGEST, BUDGET) + 4 * LONGEST

    @rule(takers=st.integers(1, 4))
    def next_batch_of_a_reserved_worker(self, takers: int) -> None:
        batch = self.queue.next_batch(takers, interactive_only=True)
        assert bool(batch) == bool(self.waiting["interactive"])
        assert all(item.lane == "interactive" for item in batch)
        self.check_batch(batch, takers)

    def check_batch(self, batch: list[Item[int]], takers: int) -> None:
        if not batch:
            return
        waiting = self.waiting[batch[0].lane]
        tokens, all_tokens = sum(item.cost for item in batch), sum(item.cost for item in waiting)
        assert tokens <= BUDGET or len(batch) == 1
        for tenant in TENANTS:
            taken = [item for item in batch if item.tenant == tenant]
            assert taken == [item for item in waiting if item.tenant == tenant][: len(taken)]
        rest = [item for item in waiting if item not in batch]
        nexts = [next(item for item in rest if item.tenant == tenant) for tenant in {item.tenant for item in rest}]
        assert not nexts or tokens + max(item.cost for item in nexts) > min(BUDGET, all_tokens / takers)
        for item in nexts:
            others = sum(one.cost for one in batch if one.tenant != item.tenant)
            first = not any(one.tenant == item.tenant for one in batch)
            self.passed_over_tokens[item] = first * (self.passed_over_tokens.get(item, 0) + others)
            # Each other tenant may get what this one had last, and one text more.
            assert self.passed_over_tokens[item] <= (len(TENANTS) - 1) * 2 * LONGEST
        self.waiting[batch[0].lane] = rest

    @rule()
    def drain(self) -> None:
        assert sorted(map(id, self.queue.drain())) == sorted(id(item) for lane in LANES for item in self.waiting[lane])
        self.waiting = {"interactive": [], "bulk": []}

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.queue) == sum(map(len, self.waiting.values()))
        for lane in LANES:
            assert self.queue.lane_tokens(lane) == sum(item.cost for item in self.waiting[lane])


TestAnySchedule = AnySchedule.TestCase
TestAnySchedule.settings = settings(max_examples=SCHEDULES, stateful_step_count=40, deadline=None)
