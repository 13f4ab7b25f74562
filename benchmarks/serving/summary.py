"""What a list of outcomes says: tokens per second, percentiles of latency, failures, and whether the server counted what was sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, nan

from benchmarks.serving.plan import OK, Outcome


class Miscounted(Exception):
    """The server's token counter does not equal the tokens sent: it computed something else than it was asked to."""


@dataclass(frozen=True, slots=True)
class Summary:
    requests: int
    tok_s: float
    """Tokens of answered requests per second, from the first request to the last answer: what drains at the end counts with its time."""
    p50_ms: float
    p99_ms: float
    statuses: Counter[int]
    counted_ratio: float | None
    """Tokens in the answers' usage over the tokens sent; None: the server has no such counter."""

    @property
    def failed(self) -> int:
        return self.requests - self.statuses[OK]


def summarize(outcomes: Sequence[Outcome]) -> Summary:
    answered = [outcome for outcome in outcomes if outcome.reply.status == OK]
    latencies_ms = [1000 * outcome.latency_s for outcome in answered]
    return Summary(
        requests=len(outcomes),
        tok_s=tokens_per_s(outcomes, sum(outcome.tokens for outcome in answered)),
        p50_ms=percentile(latencies_ms, 50),
        p99_ms=percentile(latencies_ms, 99),
        statuses=Counter(outcome.reply.status for outcome in outcomes),
        counted_ratio=_counted_ratio(answered),
    )


def tokens_per_s(outcomes: Sequence[Outcome], tokens: int) -> float:
    seconds = max((outcome.ended_s for outcome in outcomes), default=0.0) - min((outcome.sent_s for outcome in outcomes), default=0.0)
    return tokens / seconds if seconds > 0 else nan


def counted_tokens_per_s(outcomes: Sequence[Outcome]) -> float:
    """By the answers' own counts, where only the model knows what a request costs."""
    return tokens_per_s(outcomes, sum(outcome.reply.counted_tokens or 0 for outcome in outcomes))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent of all do not exceed; NaN of nothing."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)] if ordered else nan


def check_counts(name: str, outcomes: Sequence[Outcome]) -> None:
    """Raises Miscounted; says nothing of requests of which only the answer says what they cost."""
    for outcome in outcomes:
        if outcome.reply.status == OK and outcome.tokens and outcome.reply.counted_tokens != outcome.tokens:
            raise Miscounted(f"{name} counted {outcome.reply.counted_tokens} tokens in a request of {outcome.tokens}")


def _counted_ratio(answered: Sequence[Outcome]) -> float | None:
    counts = [outcome.reply.counted_tokens for outcome in answered]
    sent = sum(outcome.tokens for outcome in answered)
    if not sent or any(count is None for count in counts):
        return None
    return sum(count or 0 for count in counts) / sent
