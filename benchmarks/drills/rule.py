"""What a fault may cost, and what it did cost. Knows requests and their errors, not how anything is broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.drills.clients import Answer, Asked, Question, Version
from benchmarks.durability.truth import Fault as Loss
from bgeserve.errors import BgeServeError, Unavailable

OK = "200"
TOLD_WHEN = "503 with retry-after"
FULL = "507"
May = Callable[[Asked, float], bool]
"""Whether this request may have failed, when the fault came at that instant."""


def never(asked: Asked, struck_s: float) -> bool:
    return False


def any_of(asked: Asked, struck_s: float) -> bool:
    return True


def in_flight(asked: Asked, struck_s: float) -> bool:
    return asked.began_s <= struck_s


def not_accepted(asked: Asked, struck_s: float) -> bool:
    """It was on its way, or did not get as far as the service, which always says when to come again."""
    error = _error(asked)
    return in_flight(asked, struck_s) or (isinstance(error, Unavailable) and error.retry_after_s is None)


def told_when(asked: Asked, struck_s: float) -> bool:
    error = _error(asked)
    return isinstance(error, Unavailable) and error.retry_after_s is not None


@dataclass(frozen=True, slots=True)
class Rule:
    words: str
    bare: May = never
    retrying: May = never
    writes: frozenset[str] | None = frozenset({OK})
    """How writes may be answered. None: in any way, since none that was acknowledged is lost."""
    must_degrade: bool = False


NOBODY_NOTICES = Rule("no request fails")
IN_FLIGHT = Rule("only what is in flight on it fails; nothing with the client's retry", bare=in_flight, writes=None)
NOT_ACCEPTED = Rule("only what it has, or does not take, fails; nothing with the client's retry", bare=not_accepted, writes=None)
WAITS = Rule("waits, or 503 with Retry-After", bare=told_when, retrying=told_when, writes=frozenset({OK, TOLD_WHEN}))
READS_GO_ON = Rule("writes get 507, nothing else fails", writes=frozenset({OK, FULL}))
DEGRADES = Rule("no request fails; searches are answered without the reranker, and say so", must_degrade=True)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one drill. Instants are of the monotonic clock."""

    asked: Sequence[Asked]
    versions: Sequence[Version]
    """Of the service, before and after."""
    plain: Version
    """What searches answer without the reranker."""
    writes: Counter[str]
    losses: Sequence[Loss]
    struck_s: float
    ended_s: float
    """When the fault was over; of a kill at once."""
    whole_s: float
    """When everything was there again, and everybody had an answer to something sent after the fault."""
    problem: str = ""
    """Why that did not come; what is stored was not looked at then."""

    def sent(self, *, retries: bool) -> int:
        return sum(one.retries == retries for one in self.asked)

    def failed(self, *, retries: bool) -> list[Asked]:
        return [one for one in self.asked if one.error is not None and one.retries == retries]

    @property
    def degraded(self) -> int:
        return sum(one.answer is not None and bool(one.answer.degraded) for one in self.asked)

    @property
    def wrong(self) -> list[Asked]:
        return [one for one in self.asked if one.answer is not None and not self._is_right(one.question, one.answer)]

    @property
    def recovery_s(self) -> float:
        return self.whole_s - self.ended_s

    @property
    def gap_s(self) -> float:
        """The longest time without an answer to anybody."""
        answered = sorted(one.ended_s for one in self.asked if one.answer is not None)
        return max((later - earlier for earlier, later in pairwise(answered)), default=0.0)

    def breaches(self, rule: Rule) -> list[str]:
        """How the rule was broken, in words."""
        found = [self.problem] if self.problem else []
        found += [f"{len(wrong)} wrong answers"] if (wrong := self.wrong) else []
        found += [f"{loss.loss}: {loss.message}" for loss in self.losses]
        for may, retries in ((rule.bare, False), (rule.retrying, True)):
            found += _counted(_said(one) for one in self.failed(retries=retries) if not may(one, self.struck_s))
        if rule.writes is not None:
            found += [f"{times} writes were answered {answer}" for answer, times in self.writes.items() if answer not in rule.writes]
        if self.degraded and not rule.must_degrade:
            found.append(f"{self.degraded} answers were degraded")
        if rule.must_degrade and not self.degraded:
            found.append("no answer was degraded: the fault was not met")
        return found

    def _is_right(self, question: Question, answer: Answer) -> bool:
        expected = [self.plain] if answer.degraded else self.versions
        return any(question in version and answer.equals(version[question]) for version in expected)


def _error(asked: Asked) -> BgeServeError:
    assert asked.error is not None
    return asked.error


def _said(asked: Asked) -> str:
    error = _error(asked)
    what = "search" if asked.question.query else f"embed of {len(asked.question.texts)}"
    return f"{what}{' with the retry' if asked.retries else ''}: {error.status} {error.message[:160]}"


def _counted(said: Iterable[str]) -> list[str]:
    return [f"{times} x {what}" for what, times in Counter(said).items()]
