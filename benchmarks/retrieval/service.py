"""A search end to end through the quickstart service, beside what its parts take alone; and the CPU that a search costs, stage by stage."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.quality import QUESTIONS
from benchmarks.quickstart import INDEX, quickstart
from benchmarks.retrieval.stored import CANDIDATES, TOP_K
from benchmarks.serving.processes import Program, cpu_s
from benchmarks.serving.profile import short_title
from benchmarks.serving.report import Section
from bgeserve.client import Client
from bgeserve.fusion import Fusion
from bgeserve.retrieval import StoreRetriever
from bgeserve.sources import read_documents
from bgeserve.store_settings import QdrantEdgeSettings
from bgeserve.types import Embeddings, Query

INDEXING_S = 240
CLIENTS = 32
OVER_PARTS_GOAL_MS = 4.0


def measure(rounds: int, seconds: float) -> list[Section]:
    questions = [json.loads(line)["query"] for line in QUESTIONS.read_text().splitlines()]
    with tempfile.TemporaryDirectory(prefix="retrieval-benchmark-") as folder:
        with quickstart(Path(folder)) as (url, program):
            with Client(url, timeout_s=INDEXING_S) as client:
                client.put_documents(read_documents("stdlib:"))
            searched_ms, embedded_ms, vectors = _one_client(url, questions, rounds)
            cpu = _cpu_per_search(url, program, questions, seconds)
        stored_ms = asyncio.run(_store_alone(Path(folder) / INDEX, questions, vectors, rounds))
    parts = (median(searched_ms), median(embedded_ms), median(stored_ms))
    over = parts[0] - parts[1] - parts[2]
    one = Section(
        "A search through the quickstart service, one client",
        ("search p50 ms", "embedding alone", "store alone", "search over both", "goal"),
        [[*(f"{ms:.1f}" for ms in parts), f"{over:.1f}", f"{OVER_PARTS_GOAL_MS:g}"]],
        [
            f"dense + full_text, not reranked, {len(searched_ms)} searches; in turns with a request for the same query's embedding; "
            "the store: the Retriever over the same folder, in process"
        ],
    )
    return [one, cpu]


def _one_client(url: str, questions: Sequence[str], rounds: int) -> tuple[list[float], list[float], Embeddings]:
    searched_ms: list[float] = []
    embedded_ms: list[float] = []
    with Client(url) as client:
        for round_ in range(rounds + 1):
            for question in questions:
                started = perf_counter()
                client.search_many([question], top_k=TOP_K, rerank=False)
                between = perf_counter()
                client.encode([question], input_type="query")
                ended = perf_counter()
                if round_ > 0:  # the first warms up
                    searched_ms.append(1000 * (between - started))
                    embedded_ms.append(1000 * (ended - between))
        vectors = client.encode(questions, input_type="query")
    return searched_ms, embedded_ms, vectors


async def _store_alone(path: Path, questions: Sequence[str], vectors: Embeddings, rounds: int) -> list[float]:
    assert vectors.dense is not None
    queries = [Query(text, dense=dense) for text, dense in zip(questions, vectors.dense, strict=True)]
    retriever = StoreRetriever(QdrantEdgeSettings(path=path))
    took_ms: list[float] = []
    try:
        for round_ in range(rounds + 1):
            for query in queries:
                started = perf_counter()
                await retriever.retrieve(
                    "default",
                    [query],
                    fingerprint=vectors.fingerprint,
                    legs=("dense", "full_text"),
                    fusion=Fusion("weighted"),
                    candidates=CANDIDATES,
                    limit=TOP_K,
                )
                if round_ > 0:
                    took_ms.append(1000 * (perf_counter() - started))
    finally:
        await retriever.close()
    return took_ms


def _cpu_per_search(url: str, program: Program, questions: Sequence[str], seconds: float) -> Section:
    before = {pid: cpu_s(pid) for pid in program.pids()}
    until = perf_counter() + seconds

    def searches(offset: int) -> list[float]:
        took: list[float] = []
        with Client(url) as client:
            for question in cycle(questions[offset:] + questions[:offset]):
                started = perf_counter()
                if started > until:
                    return took
                client.search_many([question], top_k=TOP_K, rerank=False)
                took.append(1000 * (perf_counter() - started))
        return took

    with ThreadPoolExecutor(CLIENTS) as clients:
        took_ms = [ms for mine in clients.map(searches, range(CLIENTS)) for ms in mine]
    used: Counter[str] = Counter()
    for pid in program.pids():
        used[short_title(pid)] += cpu_s(pid) - before.get(pid, 0.0)
    rows = [[name, f"{1000 * s / len(took_ms):.2f}", f"{s / used.total():.0%}"] for name, s in used.most_common() if s > 0]
    rows.append(["all", f"{1000 * used.total() / len(took_ms):.2f}", "100%"])
    notes = [
        f"{CLIENTS} clients in one process beside the service on {os.cpu_count()} cores, {len(took_ms)} searches in {seconds:g} s, "
        f"p50 {median(took_ms):.0f} ms"
    ]
    return Section(f"CPU of a search by process, {CLIENTS} clients", ("process", "CPU ms a search", "share"), rows, notes)
