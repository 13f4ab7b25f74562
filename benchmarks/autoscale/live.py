"""A trace sent to a real service on two Ray nodes, with paced embedders, and what became of it, in the terms of the simulation."""

from __future__ import annotations

import json
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.autoscale.compare import Setup
from benchmarks.autoscale.paced import TOKEN
from benchmarks.autoscale.traces import TAIL_S, TIMEOUT_S, Trace
from benchmarks.drills.cluster import Cluster
from benchmarks.drills.services import Place
from benchmarks.serving.http1 import request_bytes
from benchmarks.serving.plan import OK, Open, Outcome, Request
from benchmarks.serving.targets import Server
from bgeserve.simulation import load
from bgeserve.types import Lane

NAME = "paced"
POLL_S = 0.5
REFUSED, LATE = 429, 504
TEXTS_PER_REQUEST = 16
"""So many that each request is a call of its own: small ones go over together, and Ray, which counts calls, would be told of fewer."""
CPUS = 0.05


@dataclass(frozen=True)
class Found:
    outcome: load.Outcome
    start_s: float
    """That a replica took, in the mean, from being asked for until it answered; NaN when none was started."""
    failed: int
    """Any other answer than vectors, a refusal or a passed deadline."""


def run_live(setup: Setup, trace: Trace, by_requests: Mapping[str, object] | None) -> Found:
    """by_requests: Ray's `autoscaling_config`; None: our policy."""
    with tempfile.TemporaryDirectory(prefix="autoscale-") as folder:
        cluster = Cluster(Place(Path(folder)))
        try:
            cluster.deploy(_config(setup, by_requests))
            cluster.until_whole()
            return _measure(Server(NAME, cluster.head, cluster.port, NAME), trace)
        finally:
            cluster.stop()


def _config(setup: Setup, by_requests: Mapping[str, object] | None) -> dict[str, Any]:
    speed = setup.speed
    model = {
        "model": NAME,
        "workers": 1,
        "cpus": CPUS,
        "max_batch_tokens": speed.max_batch_tokens,
        "max_queue_s": speed.max_queue_s,
        "replicas": asdict(setup.rule),
    }
    arguments: dict[str, Any] = {
        "embedders": {NAME: model},
        "tokens_per_s": speed.tokens_per_s,
        "ingress": {"cpus": CPUS, "timeout_s": max(TIMEOUT_S.values())},
    }
    if by_requests is not None:
        arguments["by_requests"] = dict(by_requests)
    return {"applications": [{"name": "embed", "import_path": "benchmarks.autoscale.paced:build", "route_prefix": "/", "args": arguments}]}


def _measure(server: Server, trace: Trace) -> Found:
    lanes: dict[Lane, list[load.Arrival]] = {"interactive": [], "bulk": []}
    for arrival in trace.arrivals:
        lanes[arrival.lane].append(arrival)
    plan = {lane: Open([_request(one) for one in arrivals], [one.at_s for one in arrivals]) for lane, arrivals in lanes.items()}
    watch = _Watch(server.port, trace.seconds + TAIL_S)
    sent = server.run(plan).outcomes
    watch.wait()
    return found_of({"interactive": sent["interactive"], "bulk": sent["bulk"]}, watch.seen)


def _request(arrival: load.Arrival) -> Request:
    texts = 1000 if arrival.lane == "bulk" else TEXTS_PER_REQUEST
    body = {"model": NAME, "input": [TOKEN * max(1, arrival.tokens // texts)] * texts}
    headers = {"x-lane": arrival.lane, "x-timeout-ms": str(int(1000 * TIMEOUT_S[arrival.lane]))}
    return Request(request_bytes("/v1/embeddings", body, headers), arrival.tokens)


class _Watch:
    """Looks at the replicas for so long, beside the load, whose first second the client takes to start."""

    def __init__(self, port: int, seconds: float) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/status"
        self._seconds = seconds
        self.seen: list[tuple[float, Mapping[str, int]]] = []
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def wait(self) -> None:
        self._thread.join()

    def _look(self) -> None:
        began = time.monotonic()
        while (now := time.monotonic() - began) < self._seconds:
            with suppress(OSError), urllib.request.urlopen(self._url, timeout=5) as answer:
                (model,) = json.load(answer)["models"]
                self.seen.append((now, model["replicas"]))
            time.sleep(POLL_S)


def found_of(sent: Mapping[Lane, Sequence[Outcome]], seen: Sequence[tuple[float, Mapping[str, int]]]) -> Found:
    """seen: seconds, and how many replicas were in each state then."""
    outcome = load.Outcome(requests=sum(map(len, sent.values())))
    everything = [one for requests in sent.values() for one in requests]
    for lane, requests in sent.items():
        outcome.answered[lane] += [(one.latency_s, 1) for one in requests if one.reply.status == OK]
    outcome.refused = sum(one.reply.status == REFUSED for one in everything)
    outcome.late = sum(one.reply.status == LATE for one in everything)
    failed = sum(one.reply.status not in (OK, REFUSED, LATE) for one in everything)
    started = starting_s = 0.0
    for (at_s, states), (next_s, after) in pairwise(seen):
        there, lasted_s = sum(states.values()), next_s - at_s
        outcome.replica_s += there * lasted_s
        starting_s += states.get("STARTING", 0) * lasted_s
        started += max(0, sum(after.values()) - there)
        unanswered = sum(one.tokens for one in everything if one.due_s <= at_s < one.ended_s)
        outcome.moments.append(load.Moment(at_s, there, states.get("RUNNING", 0), unanswered))
    return Found(outcome, starting_s / started if started else float("nan"), failed)
