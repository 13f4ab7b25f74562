"""What a search costs a waiting person: `python -m benchmarks.search [--url URL]`.

Against a running service that holds the corpus, warm, one client; searches with and without reranking take turns, so that a noisy machine
treats them alike. Printed beside each is the time that the service is meant to stay under, and where its own stages say the time went.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from statistics import median, quantiles
from time import perf_counter

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from benchmarks.quality import QUESTIONS
from bgeserve.client import Client

RERANKED = 10
STAGES = ("embed", "retrieve", "rerank")
BUDGETS_MS = {0: 30.0, RERANKED: 150.0}
"""At p50 on two quiet cores, by how many hits are reranked."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--rounds", type=int, default=3, help="times that each of the queries is searched")
    args = parser.parse_args()
    queries = [json.loads(line)["query"] for line in QUESTIONS.read_text().splitlines()]
    took_ms: dict[int, list[float]] = defaultdict(list)
    stages_ms: dict[tuple[int, str], list[float]] = defaultdict(list)
    with Client(args.url) as client:
        for round in range(args.rounds + 1):
            for query in queries:
                for reranked in BUDGETS_MS:
                    started = perf_counter()
                    answer = client.search_many([query], top_k=RERANKED, rerank=reranked > 0, rerank_top=reranked or None)
                    elapsed_ms = 1000 * (perf_counter() - started)
                    if round:  # the first warms up
                        took_ms[reranked].append(elapsed_ms)
                        for stage, ms in answer.timings_ms.items():
                            stages_ms[reranked, stage].append(ms)
    table = Table("search", "p50 ms", "p90 ms", "budget ms", "p50 / budget", *(f"{stage} p50 ms" for stage in STAGES))
    for reranked, budget_ms in BUDGETS_MS.items():
        p50, p90 = median(took_ms[reranked]), quantiles(took_ms[reranked], n=10)[-1]
        stages = (f"{median(stages_ms[reranked, stage] or [0.0]):.1f}" for stage in STAGES)
        table.add_row(f"rerank of {reranked}", f"{p50:.1f}", f"{p90:.1f}", f"{budget_ms:.0f}", f"{p50 / budget_ms:.2f}", *stages)
    Console(width=120).print(table, f"{len(queries) * args.rounds} searches each; {describe_machine()}", sep="\n")


if __name__ == "__main__":
    main()
