"""Tenants of one lane take turns by tokens."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bgeserve.batching.fair_lane import FairLane, Item


def of(tenant: str, cost: int = 10, flow: str = "") -> Item[str]:
    return Item("x", cost, tenant=tenant, flow=flow)


def test_what_one_tenant_sent_stays_in_order() -> None:
    lane: FairLane[str] = FairLane()
    items = [of("a", cost) for cost in (30, 1, 20)]
    for item in items:
        lane.add(item)
    assert [lane.take() for _ in items] == items


def test_a_tenant_that_comes_later_does_not_wait_until_a_flood_is_over() -> None:
    lane: FairLane[str] = FairLane()
    for _ in range(100):
        lane.add(of("flood"))
    for _ in range(10):
        lane.take()
    late = of("late")
    lane.add(late)
    assert late in [lane.take() for _ in range(2)]


def test_who_sends_one_at_a_time_gets_no_more_than_its_share() -> None:
    lane: FairLane[str] = FairLane()
    served: Counter[str] = Counter()
    for _ in range(100):
        lane.add(of("patient"))
    lane.add(of("eager"))
    for _ in range(100):
        item = lane.take()
        served[item.tenant] += 1
        if item.tenant == "eager":
            lane.add(of("eager"))
    assert abs(served["eager"] - served["patient"]) <= 1


@given(costs=st.dictionaries(st.sampled_from("abc"), st.integers(1, 50), min_size=2))
def test_tokens_are_shared_equally_however_long_the_texts_are(costs: dict[str, int]) -> None:
    lane: FairLane[str] = FairLane()
    served: Counter[str] = Counter()
    for tenant, cost in costs.items():
        for _ in range(3000 // cost + 1):
            lane.add(of(tenant, cost))
    while max(served.values(), default=0) < 2000:
        item = lane.take()
        served[item.tenant] += item.cost
    assert max(served.values()) - min(served[tenant] for tenant in costs) <= 2 * max(costs.values())


@given(costs=st.lists(st.integers(1, 50), min_size=3, max_size=3))
def test_flows_share_what_their_tenant_gets(costs: list[int]) -> None:
    lane: FairLane[str] = FairLane()
    served: Counter[str] = Counter()
    for flow, tenant, cost in zip(("people", "jobs", "all"), ("one", "one", "other"), costs, strict=True):
        for _ in range(4000 // cost + 1):
            lane.add(of(tenant, cost, flow))
    while served.total() < 4000:
        item = lane.take()
        served[item.flow] += item.cost
    longest = max(costs)
    assert abs(served["people"] - served["jobs"]) <= 2 * longest
    assert abs(served["people"] + served["jobs"] - served["all"]) <= 4 * longest


def test_a_flow_alone_has_all_that_its_tenant_gets() -> None:
    lane: FairLane[str] = FairLane()
    lane.add(of("one", flow="people"))
    for tenant, flow in (("one", "jobs"), ("other", "jobs")):
        for _ in range(50):
            lane.add(of(tenant, flow=flow))
    served = Counter(lane.take().tenant for _ in range(60))
    assert abs(served["one"] - served["other"]) <= 2


@given(
    waiting=st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(1, 30), min_size=1, max_size=8)),
    tenant=st.sampled_from("abcd"),
    offered=st.lists(st.integers(1, 30), min_size=1, max_size=4),
)
def test_what_is_computed_until_an_offer_is_done_is_known_beforehand(
    waiting: dict[str, list[int]], tenant: str, offered: list[int]
) -> None:
    lane: FairLane[str] = FairLane()
    for one, costs in waiting.items():
        for cost in costs:
            lane.add(of(one, cost))
    foretold = lane.tokens_through(tenant, sum(offered))
    items = [of(tenant, cost) for cost in offered]
    for item in items:
        lane.add(item)
    computed = 0
    while items[-1] in lane:
        computed += lane.take().cost
    # Turns are taken by whole texts, so each tenant may be one of them ahead or behind.
    assert abs(computed - foretold) <= 30 * len({*waiting, tenant})
