"""A caller's deadline counts down wherever it is."""

from __future__ import annotations

import pickle
import time

import pytest

from bgeserve.caller import ANYONE, Caller
from bgeserve.deadline import Deadline
from bgeserve.errors import DeadlineExceeded


def test_a_deadline_travels_as_what_is_left_of_it() -> None:
    caller = Caller("bulk", Deadline(5), "page")
    time.sleep(0.01)
    arrived = pickle.loads(pickle.dumps(caller))
    assert (arrived.lane, arrived.tenant) == ("bulk", "page")
    assert 4 < arrived.deadline.remaining_s() < 4.995
    assert pickle.loads(pickle.dumps(ANYONE)).deadline.remaining_s() is None


def test_one_that_has_passed_arrives_and_has_passed_there_too() -> None:
    passed = Deadline(0.001)
    time.sleep(0.002)
    for deadline in (passed, pickle.loads(pickle.dumps(passed))):
        with pytest.raises(DeadlineExceeded, match="has passed"):
            deadline.remaining_s()
