"""How a drill is judged: what counts as wrong, and what a rule lets pass."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.drills.__main__ import DRILLS, parse_arguments
from benchmarks.drills.clients import Answer, Asked, Question
from benchmarks.drills.rule import DEGRADES, IN_FLIGHT, NOBODY_NOTICES, NOT_ACCEPTED, READS_GO_ON, WAITS, Cost, Rule
from benchmarks.drills.services import SERVICES
from benchmarks.drills.soak import findings
from benchmarks.durability.truth import Fault
from benchmarks.resident import MIB
from bgeserve.errors import BgeServeError, DeadlineExceeded, Unavailable

TEXTS = Question(texts=("a", "b"))
SEARCH = Question("amber")


def numbers(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


OLD, NEW = Answer("model-1", numbers(1, 2)), Answer("model-2", numbers(3, 4))
RERANKED, PLAIN = Answer("x y", numbers(0.9, 0.8)), Answer("x y", numbers(0.2, 0.1), ("rerank",))
GONE = Unavailable("the service cannot be reached: nobody listens")
STRUCK_S = 10.0


def asked(
    answer: Answer | None = None,
    error: BgeServeError | None = None,
    *,
    question: Question = TEXTS,
    retries: bool = False,
    began_s: float = 11.0,
) -> Asked:
    return Asked(question, retries, began_s, began_s + 1, answer, error)


def cost(*requests: Asked, writes: dict[str, int] | None = None, losses: tuple[Fault, ...] = ()) -> Cost:
    versions = [{TEXTS: OLD, SEARCH: RERANKED}, {TEXTS: NEW, SEARCH: RERANKED}]
    plain = {SEARCH: replace(PLAIN, degraded=())}
    return Cost(requests, versions, plain, Counter(writes or {"200": 1}), losses, STRUCK_S, STRUCK_S, 20.0)


def test_an_answer_is_right_when_all_of_it_is_of_one_version() -> None:
    nearly = replace(OLD, numbers=OLD.numbers + np.float32(1e-4))
    assert cost(asked(OLD), asked(NEW), asked(nearly), asked(RERANKED, question=SEARCH)).breaches(NOBODY_NOTICES) == []
    for wrong in (replace(OLD, numbers=numbers(1, 4)), replace(OLD, of="model-2"), replace(OLD, numbers=numbers(1))):
        assert cost(asked(OLD), asked(wrong)).breaches(WAITS) == ["1 wrong answers"]


def test_a_degraded_answer_is_compared_with_what_there_is_without_the_reranker() -> None:
    assert cost(asked(PLAIN, question=SEARCH)).breaches(DEGRADES) == []
    assert cost(asked(PLAIN, question=SEARCH)).breaches(NOBODY_NOTICES) == ["1 answers were degraded"]
    assert cost(asked(replace(RERANKED, degraded=("rerank",)), question=SEARCH)).breaches(DEGRADES) == ["1 wrong answers"]
    # Nothing was degraded: either the fault was not met, or nobody was told.
    assert cost(asked(RERANKED, question=SEARCH)).breaches(DEGRADES) == ["no answer was degraded: the fault was not met"]
    assert cost(asked(replace(PLAIN, degraded=()), question=SEARCH)).wrong


BEFORE, AFTER, RETRIED = asked(error=GONE, began_s=9), asked(error=GONE), asked(error=GONE, retries=True)
TOLD = asked(error=Unavailable("no owner yet", retry_after_s=5), retries=True)
LATE = asked(error=DeadlineExceeded("late"))


@pytest.mark.parametrize(
    ("rule", "let_pass"),
    [
        (NOBODY_NOTICES, []),
        (IN_FLIGHT, [BEFORE]),
        (NOT_ACCEPTED, [BEFORE, AFTER]),
        (WAITS, [TOLD]),
        (READS_GO_ON, []),
    ],
    ids=lambda value: value.words if isinstance(value, Rule) else "",
)
def test_what_a_rule_lets_fail(rule: Rule, let_pass: list[Asked]) -> None:
    for one in (BEFORE, AFTER, RETRIED, TOLD, LATE):
        assert bool(cost(one).breaches(rule)) == (one not in let_pass), one


def test_writes_and_losses_are_judged_too() -> None:
    assert cost(writes={"200": 5, "507": 2}).breaches(READS_GO_ON) == []
    assert cost(writes={"200": 5, "507": 2}).breaches(NOBODY_NOTICES) == ["2 writes were answered 507"]
    assert cost(writes={"200": 5, "ReadError": 2}).breaches(IN_FLIGHT) == []
    lost = Fault("lost", "w0-1 is absent; it must be version 3")
    assert cost(losses=(lost,)).breaches(IN_FLIGHT) == ["lost: w0-1 is absent; it must be version 3"]


def test_the_longest_time_without_an_answer_is_of_all_clients() -> None:
    requests = [asked(OLD, began_s=9), asked(OLD, began_s=10, retries=True), asked(error=GONE, began_s=12), asked(OLD, began_s=16)]
    assert cost(*requests).gap_s == 6
    assert cost(*requests).recovery_s == 10


def test_drills_have_names_of_their_own_and_services_that_there_are() -> None:
    names = [drill.name for drill in DRILLS]
    assert len(set(names)) == len(names)
    assert {drill.config for drill in DRILLS} <= SERVICES.keys()
    assert parse_arguments(["--only", "owner", "proxy"]).only == ["owner", "proxy"]
    with pytest.raises(SystemExit):
        parse_arguments(["--only", "nobody"])


@pytest.mark.parametrize(("per_look_mib", "is_broken"), [(0.0, False), (0.01, False), (0.2, True)])
def test_a_soak_is_broken_when_the_processes_that_outlive_the_faults_grow(per_look_mib: float, is_broken: bool) -> None:
    lives, dies = os.getpid(), 2**22
    looks = [(10.0 * n, {lives: round((100 + n * per_look_mib) * MIB), **({dies: n * MIB} if n < 50 else {})}) for n in range(100)]
    found, broken = findings(looks, cost(), faults=3, minutes=30)
    assert broken == is_broken
    assert [row[1] for row in found.sections[0].rows] == ["1", "1"]


def test_a_soak_is_broken_when_a_client_with_the_retry_sees_a_fault() -> None:
    looks = [(10.0 * n, {os.getpid(): 100 * MIB}) for n in range(10)]
    assert findings(looks, cost(RETRIED), faults=3, minutes=30)[1]
    assert not findings(looks, cost(BEFORE, AFTER), faults=3, minutes=30)[1]
