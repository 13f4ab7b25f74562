from __future__ import annotations

from math import isnan

import pytest

from benchmarks.serving.overload import is_honest, retry_after_pairs
from benchmarks.serving.plan import NO_ANSWER, OK, Outcome, Reply
from benchmarks.serving.summary import Miscounted, check_counts, percentile, summarize


def outcome(sent_s: float, ended_s: float, tokens: int = 10, reply: Reply | None = None, due_s: float | None = None) -> Outcome:
    return Outcome(sent_s if due_s is None else due_s, sent_s, ended_s, tokens, reply or Reply(OK, tokens))


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0], 50) == 3
    assert isnan(percentile([], 99))


def test_only_answers_count_and_latency_is_from_the_scheduled_instant() -> None:
    found = summarize(
        [outcome(0, 1, due_s=0), outcome(1, 5, due_s=0.5), outcome(2, 3, reply=Reply(429)), outcome(2, 3, reply=Reply(NO_ANSWER))]
    )
    assert found.tok_s == 20 / 5
    assert (found.p50_ms, found.p99_ms) == (1000, 4500)
    assert (found.requests, found.failed) == (4, 2)
    assert found.counted_ratio == 1


def test_a_counter_that_is_wrong_or_missing_is_noticed() -> None:
    check_counts("ours", [outcome(0, 1), outcome(0, 1, reply=Reply(429))])
    with pytest.raises(Miscounted, match="counted 9 tokens in a request of 10"):
        check_counts("ours", [outcome(0, 1), outcome(0, 1, reply=Reply(OK, 9))])
    assert summarize([outcome(0, 1), outcome(0, 1, reply=Reply(OK))]).counted_ratio is None
    assert summarize([outcome(0, 1, reply=Reply(OK, 5))]).counted_ratio == 0.5


def test_the_truth_of_a_refusal_is_the_last_answer_to_what_was_accepted_before_it() -> None:
    outcomes = [
        outcome(0, 9),
        outcome(1, 4),
        outcome(2, 2.5, reply=Reply(429, retry_after_s=3)),
        outcome(3, 20),
        outcome(4, 4.5, reply=Reply(429, retry_after_s=3)),
        outcome(5, 5.1, reply=Reply(429)),
    ]
    assert retry_after_pairs(outcomes) == [(3, 6.5), (3, 15.5)]


@pytest.mark.parametrize(("declared_s", "true_s", "honest"), [(2, 4, True), (2, 1, True), (2, 4.1, False), (2, 0.9, False), (2, -1, False)])
def test_honest_is_within_a_factor_of_two(declared_s: float, true_s: float, honest: bool) -> None:
    assert is_honest(declared_s, true_s) is honest
