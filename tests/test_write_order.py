"""The order of writes, against a model that remembers everything."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from bgeserve.errors import InvalidRequest, StaleWrite
from bgeserve.write_order import EXPIRY_S, WriteOrder

IDS = st.sets(st.sampled_from("abcd"), min_size=1)


class AcceptedLastWins(RuleBasedStateMachine):
    """The model keeps, for each id, the number of every write that took effect; a write may be applied where none of them is newer."""

    writes = Bundle("writes")

    def __init__(self) -> None:
        super().__init__()
        self.order = WriteOrder()
        self.ids: dict[int, set[str]] = {}
        self.effective: dict[str, list[int]] = {id: [] for id in "abcd"}
        self.stored: dict[str, int] = {}

    @rule(target=writes, ids=IDS)
    def begin(self, ids: set[str]) -> int:
        sequence = self.order.begin(ids, now_s=0)
        assert all(sequence > earlier for earlier in self.ids)
        self.ids[sequence] = ids
        return sequence

    @rule(sequence=writes, part=IDS)
    def apply_some(self, sequence: int, part: set[str]) -> None:
        self._apply(sequence, part & self.ids[sequence])

    @rule(sequence=consumes(writes))
    def finish(self, sequence: int) -> None:
        self._apply(sequence, self.ids[sequence])
        self.order.end(sequence)

    @rule(sequence=consumes(writes))
    def fail(self, sequence: int) -> None:
        self.order.end(sequence)
        with pytest.raises(StaleWrite):
            self.order.applicable(sequence, self.ids[sequence])

    @rule(ids=IDS)
    def delete(self, ids: set[str]) -> None:
        sequence = self.order.begin(ids, now_s=0)
        self.ids[sequence] = ids
        self._apply(sequence, ids)
        self.order.end(sequence)

    @rule()
    def delete_everything(self) -> None:
        now = self.order.begin((), now_s=0)
        self.order.end(now)
        self.ids[now] = set()
        self.order.applied_to_all()
        for effective in self.effective.values():
            effective.append(now)
        self.stored = dict.fromkeys("abcd", now)

    @invariant()
    def stored_is_the_newest_that_took_effect(self) -> None:
        assert self.stored == {id: max(effective) for id, effective in self.effective.items() if effective}

    def _apply(self, sequence: int, ids: set[str]) -> None:
        applicable = self.order.applicable(sequence, ids)
        assert applicable == {id for id in ids if all(other <= sequence for other in self.effective[id])}
        for id in applicable:
            self.stored[id] = sequence
            self.effective[id].append(sequence)
        self.order.applied(sequence, applicable)


TestAcceptedLastWins = AcceptedLastWins.TestCase
TestAcceptedLastWins.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def test_a_write_that_is_not_open_is_stale() -> None:
    order = WriteOrder()
    sequence = order.begin(["a"], now_s=0)
    order.end(sequence)
    order.end(sequence)
    for unknown in (sequence, sequence + 1, 0):
        with pytest.raises(StaleWrite):
            order.applicable(unknown, ["a"])


def test_the_next_owner_knows_no_number_of_the_last() -> None:
    last = WriteOrder().begin(["a"], now_s=0)
    following = WriteOrder()
    following.begin(["a"], now_s=0)
    with pytest.raises(StaleWrite):
        following.applicable(last, ["a"])


def test_an_abandoned_write_expires() -> None:
    order = WriteOrder()
    old = order.begin(["a"], now_s=100)
    young = order.begin(["a"], now_s=101)
    assert order.has_open_writes(100 + EXPIRY_S - 1)
    order.begin(["b"], now_s=100 + EXPIRY_S)
    assert order.applicable(young, ["a"]) == {"a"}
    with pytest.raises(StaleWrite):
        order.applicable(old, ["a"])
    assert not order.has_open_writes(10 * EXPIRY_S)


def test_ids_that_a_write_did_not_begin_with_are_refused() -> None:
    order = WriteOrder()
    sequence = order.begin(["a"], now_s=0)
    with pytest.raises(InvalidRequest, match="'b'"):
        order.applicable(sequence, ["a", "b"])
