"""What Prometheus sees of a service: found by running our own engine, and by reading the source of the Ray that is installed."""

from __future__ import annotations

import ast
import asyncio
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import wait
from dataclasses import dataclass
from importlib.util import find_spec
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

from bgeserve.batching.executor import Executor
from bgeserve.caller import Caller
from bgeserve.engine import EmbedderEngine
from bgeserve.errors import ComputeError, DeadlineExceeded, ReplicaFull, Unavailable
from bgeserve.fusion import Fusion
from bgeserve.observe import Kind, Observer
from bgeserve.retrieval import StoreRetriever
from bgeserve.settings import EmbedderSettings
from bgeserve.store_settings import QdrantEdgeSettings
from bgeserve.types import LANES, Chunk, Embeddings, Query
from tests.checkpoints import TEXTS, make_bert

SERVE_TAGS = frozenset({"application", "deployment", "replica"})
"""What Serve adds to the metrics of a replica."""
SUFFIXES: Mapping[Kind, tuple[str, ...]] = {"count": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
"""What Ray's exporter puts behind a name."""
RAY_KINDS: Mapping[str, Kind] = {"Counter": "count", "Gauge": "gauge", "Histogram": "histogram"}
WAIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Metric:
    """`name`: a regular expression of what Prometheus sees."""

    name: str
    labels: frozenset[str]


def metrics_of_a_model(folder: Path) -> list[Metric]:
    """Everything that a model and its workers measure; the tiny checkpoint is made in the folder."""
    sent: dict[str, tuple[Kind, frozenset[str]]] = {}

    def sink(kind: Kind, name: str, value: float, tags: dict[str, str]) -> None:
        assert sent.setdefault(name, (kind, frozenset(tags))) == (kind, frozenset(tags)), "a Prometheus metric has one set of labels"

    observer = Observer(sink, model="tiny")  # as deployments/embedder.py makes it
    _answer_calls(make_bert(folder), observer)
    _refuse_expire_cancel_and_fail(observer)
    return [_metric(f"bge_serve_{name}", kind, tags | SERVE_TAGS) for name, (kind, tags) in sent.items()]


def metrics_of_the_store(folder: Path) -> list[Metric]:
    """Everything that the owner of the collections measures."""
    sent: dict[str, tuple[Kind, frozenset[str]]] = {}

    def sink(kind: Kind, name: str, value: float, tags: dict[str, str]) -> None:
        sent[name] = (kind, frozenset(tags))

    asyncio.run(_write_search_and_fail(folder, Observer(sink)))  # as deployments/retriever.py makes it
    return [_metric(f"bge_serve_{name}", kind, tags | SERVE_TAGS) for name, (kind, tags) in sent.items()]


async def _write_search_and_fail(folder: Path, observer: Observer) -> None:
    retriever = StoreRetriever(QdrantEdgeSettings(path=folder / "store", create=True), observer=observer)
    chunks = [Chunk("a", 0, 0, 7, "one two", {}, "h")]
    embeddings = Embeddings("model@1", [2], [False], dense=np.ones((1, 4), np.float32))
    ticket = await retriever.begin_write("default", "model@1", {"a": "h"})
    await retriever.finish_write("default", ticket, chunks, embeddings)
    query = Query("one", np.ones(4, np.float32))
    await retriever.retrieve("default", [query], fingerprint="model@1", legs=("dense",), fusion=Fusion(), candidates=3, limit=3)
    await retriever.copy("default", "copy")
    failing = await retriever.begin_write("default", "model@1", {"b": "h"})
    await retriever.close()
    with pytest.raises(Unavailable):
        await retriever.finish_write("default", failing, chunks, embeddings)


def _answer_calls(folder: Path, observer: Observer) -> None:
    engine = EmbedderEngine("tiny", EmbedderSettings(model=str(folder), dtype="float32", max_queue_s=60), observer)
    try:
        for lane in LANES:
            asyncio.run(engine.encode(TEXTS, caller=Caller(lane)))
    finally:
        engine.close()


def _refuse_expire_cancel_and_fail(observer: Observer) -> None:
    entered, opened = threading.Event(), threading.Event()

    def compute(batch: list[int]) -> list[int]:
        entered.set()
        assert opened.wait(WAIT_S)
        if -1 in batch:
            raise RuntimeError("poison")
        return batch

    executor: Executor[int, int] = Executor(
        compute, max_batch_tokens=10, bulk_share=0.2, max_queue_s=1e-9, workers=1, side_by_side=1, observer=observer
    )

    def submit(number: int, *, cost: int = 1, deadline: float = inf) -> Any:
        return executor.submit([number], [cost], lane="interactive", deadline=deadline)

    try:
        running, late, abandoned = submit(0), submit(1, deadline=monotonic()), submit(2)
        assert abandoned.cancel()
        opened.set()
        wait([running, late], WAIT_S)
        assert isinstance(late.exception(), DeadlineExceeded)
        assert isinstance(submit(-1).exception(WAIT_S), ComputeError)
        # The speed is known by now: behind so much work nothing more is accepted.
        entered.clear()
        opened.clear()
        submit(3, cost=10**9)
        assert entered.wait(WAIT_S)
        with pytest.raises(ReplicaFull):
            submit(4)
    finally:
        opened.set()
        executor.close()


def metrics_of_ray() -> Iterator[Metric]:
    """Those that Serve's own source defines, as it is installed."""
    spec = find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    for path in (Path(spec.origin).parent / "serve" / "_private").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in RAY_KINDS:
                keywords = {keyword.arg: keyword.value for keyword in node.keywords}
                name = _pattern(node.args[0] if node.args else keywords.get("name"))
                tags = [part.value for part in ast.walk(keywords.get("tag_keys", ast.Tuple([]))) if isinstance(part, ast.Constant)]
                # A metric that is made inside a replica has Serve's tags too.
                yield _metric(name, RAY_KINDS[node.func.attr], frozenset(tags) | SERVE_TAGS)


def metrics_of_the_nodes() -> Iterator[Metric]:
    """Those that Ray's agent on each node reports, GPUs included."""
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    for name, gauge in METRICS_GAUGES.items():
        yield _metric(name, "gauge", frozenset(str(key) for key in gauge.view.columns))


def _pattern(name: ast.expr | None) -> str:
    """Such as `serve_num_[a-z]+_requests`, for a name with the protocol in it."""
    parts = name.values if isinstance(name, ast.JoinedStr) else [name]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "[a-z]+" for part in parts)


def _metric(name: str, kind: Kind, labels: frozenset[str]) -> Metric:
    stem = name.removesuffix("_total") if kind == "count" else name
    return Metric(f"ray_{stem}({'|'.join(SUFFIXES[kind])})", labels | {"le"} if kind == "histogram" else labels)
