"""One model's replicas under a load, event by event on a simulated clock: who refuses, waits, starts and leaves, and who is answered when.

The rules are the product's: what a call is (`splitting`), that bulk waits at its sender (`call_gate`), that a query is refused after a
second replica was full (`deployments/remote.py`), of two replicas the one with fewer calls (Ray's router), queues and lanes
(`batching`), and the policy that is asked. Left out: tenants, deaths, and what a request costs outside of the replicas (`request_s`).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import ceil, inf

from bgeserve.batching.fair_lane import FairLane, Item
from bgeserve.scaling import Load
from bgeserve.simulation.load import Arrival, Moment, Outcome
from bgeserve.simulation.policies import Policy, Seen
from bgeserve.simulation.replica import Call, Replica, Request, Speed
from bgeserve.splitting import BATCHES_PER_CALL
from bgeserve.types import Lane

CALLS_PER_REPLICA = 4
"""As in `deployments/handles.py`: of bulk, in flight."""


@dataclass(frozen=True)
class FleetSettings:
    speed: Speed
    max_replicas: int
    starts_with: int
    start_s: float
    """From asking for a replica until it answers."""
    timeout_s: dict[Lane, float] = field(default_factory=lambda: {"interactive": 30.0, "bulk": 30.0})
    request_s: float = 0.0
    """What a request takes besides waiting and computing: HTTP, ingress, Ray."""


class Fleet:
    def __init__(self, settings: FleetSettings, policy: Policy, seed: int = 0) -> None:
        self._settings = settings
        self._policy = policy
        self._draw = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._now = 0.0
        self._replicas: list[Replica] = []
        """Asked for and not told to leave."""
        self._running: list[Replica] = []
        self._leaving = 0
        self._held: deque[Call] = deque()
        """While no replica runs."""
        self._gated: FairLane[Call] = FairLane()
        self._bulk_room = CALLS_PER_REPLICA * settings.max_replicas * self._max_call_tokens
        self._pausing_tokens = self._computed_tokens = self._refused_tokens = 0
        self._unanswered_tokens = 0
        self._outcome = Outcome()

    def run(self, arrivals: Iterable[Arrival], seconds: float) -> Outcome:
        """What became of the arrivals, in the order of their instants, until `seconds`; those in progress then are not counted."""
        coming = iter(arrivals)
        self._scale_to(self._settings.starts_with)
        for replica in self._replicas:
            self._ready(replica)
        self._decide()
        arrival = next(coming, None)
        while True:
            at = self._events[0][0]
            if arrival is not None and arrival.at_s <= at:
                if arrival.at_s >= seconds:
                    break
                self._now = arrival.at_s
                self._arrive(arrival)
                arrival = next(coming, None)
            elif at >= seconds:
                break
            else:
                self._now, _, happen = heappop(self._events)
                happen()
        self._now = seconds
        self._outcome.replica_s += sum(seconds - replica.asked_at_s for replica in self._replicas)
        return self._outcome

    @property
    def _max_call_tokens(self) -> int:
        return BATCHES_PER_CALL * self._settings.speed.max_batch_tokens

    def _at(self, at_s: float, happen: Callable[[], None]) -> None:
        heappush(self._events, (at_s, next(self._order), happen))

    # What is sent.

    def _arrive(self, arrival: Arrival) -> None:
        calls = ceil(arrival.tokens / self._max_call_tokens)
        lane: Lane = "bulk" if calls > 1 else arrival.lane
        request = Request(arrival, self._now + self._settings.timeout_s[arrival.lane], calls)
        self._outcome.requests += arrival.requests
        self._unanswered_tokens += arrival.requests * arrival.tokens
        for n in range(calls):
            tokens = arrival.tokens // calls + (n < arrival.tokens % calls)
            call = Call(request, arrival.requests * tokens, lane)
            if lane == "interactive":
                self._send(call)
            else:
                self._gated.add(Item(call, call.tokens, flow=arrival.lane))
        self._open_gate()

    def _open_gate(self) -> None:
        while self._gated and (self._bulk_room > 0 or self._is_over(self._gated.first().payload)):
            call = self._gated.take().payload
            if not self._is_over(call):
                self._bulk_room -= call.tokens
                self._send(call)

    def _send(self, call: Call) -> None:
        if self._is_over(call):
            self._leave_gate(call)
        elif not self._running:
            self._held.append(call)
        else:
            replica = self._choose()
            full_s = replica.full_for_s(call, self._now)
            if full_s == 0:
                replica.take(call)
                if not replica.batch:
                    self._begin_batch(replica)
            else:
                self._refuse(call, full_s)

    def _choose(self) -> Replica:
        draw, running = self._draw.random, self._running
        one, other = running[int(draw() * len(running))], running[int(draw() * len(running))]
        return one if one.calls <= other.calls else other

    def _refuse(self, call: Call, full_s: float) -> None:
        call.refusals += 1
        tries = min(2, self._settings.max_replicas)
        if call.refusals < tries:
            self._send(call)
        elif call.lane == "interactive":
            self._refused_tokens += call.tokens
            self._fail(call.request, refused=True)
        else:
            self._pausing_tokens += call.tokens
            self._at(self._now + full_s / 2, lambda: self._send_again(call))

    def _send_again(self, call: Call) -> None:
        self._pausing_tokens -= call.tokens
        self._send(call)

    # What becomes of it.

    def _begin_batch(self, replica: Replica) -> None:
        ends_s, expired = replica.begin_batch(self._now)
        for item in expired:
            self._fail(item.payload.request)
            self._done_with(replica, item)
        if ends_s < inf:
            self._at(ends_s, lambda: self._end_batch(replica))
        elif replica.calls == 0 and not replica.is_running:
            self._gone(replica)

    def _end_batch(self, replica: Replica) -> None:
        for item in replica.batch:
            self._computed_tokens += item.cost
            if self._done_with(replica, item):
                self._answer(item.payload.request)
        self._begin_batch(replica)

    def _done_with(self, replica: Replica, item: Item[Call]) -> bool:
        """Whether this was the last of its call."""
        call = item.payload
        call.pieces_left -= 1
        if call.pieces_left == 0:
            replica.calls -= 1
            self._leave_gate(call)
        return call.pieces_left == 0

    def _leave_gate(self, call: Call) -> None:
        if call.lane == "bulk":
            self._bulk_room += call.tokens
            self._open_gate()

    def _answer(self, request: Request) -> None:
        request.calls_left -= 1
        if request.calls_left > 0 or request.failed:
            return
        if self._now > request.deadline_s:
            self._fail(request)
            return
        arrival = request.arrival
        self._unanswered_tokens -= arrival.requests * arrival.tokens
        latency_s = self._now - arrival.at_s + self._settings.request_s
        self._outcome.answered[arrival.lane].append((latency_s, arrival.requests))

    def _is_over(self, call: Call) -> bool:
        """Nobody waits for it any more: too late, or another call of its request has failed."""
        if not call.request.failed and self._now >= call.request.deadline_s:
            self._fail(call.request)
        return call.request.failed

    def _fail(self, request: Request, *, refused: bool = False) -> None:
        if request.failed:
            return
        request.failed = True
        requests = request.arrival.requests
        self._unanswered_tokens -= requests * request.arrival.tokens
        if refused:
            self._outcome.refused += requests
        else:
            self._outcome.late += requests

    # Who is there.

    def _decide(self) -> None:
        while self._held and self._is_over(self._held[0]):
            self._leave_gate(self._held.popleft())
        self._open_gate()
        wanted = self._policy.wanted_replicas(self._seen())
        self._scale_to(wanted)
        there = len(self._replicas) + self._leaving
        self._outcome.moments.append(Moment(self._now, there, len(self._running), self._unanswered_tokens))
        self._at(self._now + self._policy.interval_s, self._decide)

    def _seen(self) -> Seen:
        queued_tokens = sum(replica.backlog_tokens(self._now) for replica in self._running)
        held_tokens = sum(call.tokens for call in self._held)
        load = Load(
            queued_tokens=queued_tokens,
            waiting_tokens=self._gated.tokens + self._pausing_tokens + held_tokens,
            tokens_per_s=self._settings.speed.tokens_per_s,
            computed_tokens=self._computed_tokens,
            refused_tokens=self._refused_tokens,
        )
        ongoing = len(self._held) + sum(replica.calls for replica in self._running)
        return Seen(self._now, len(self._running), len(self._replicas), len(self._held), ongoing, load)

    def _scale_to(self, wanted: int) -> None:
        for _ in range(wanted - len(self._replicas)):
            replica = Replica(self._settings.speed, self._now)
            self._replicas.append(replica)
            self._at(self._now + self._settings.start_s, lambda replica=replica: self._ready(replica))
        # The youngest first: those that are still starting have nothing to finish.
        for replica in [self._replicas.pop() for _ in range(len(self._replicas) - wanted)]:
            self._leaving += 1
            was_running, replica.is_running = replica.is_running, False
            if was_running:
                self._running.remove(replica)
            if replica.calls == 0:
                self._gone(replica)

    def _ready(self, replica: Replica) -> None:
        if replica.is_running or replica not in self._replicas:
            return
        replica.is_running = True
        self._running.append(replica)
        held, self._held = self._held, deque()
        for call in held:
            self._send(call)

    def _gone(self, replica: Replica) -> None:
        self._leaving -= 1
        self._outcome.replica_s += self._now - replica.asked_at_s
