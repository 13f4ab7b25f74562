"""What serving adds to one text of one waiting client: `python -m benchmarks.serve_one [--url URL] [--texts PATH]`.

Over HTTP against a running service, and the same forward (tokenising included) in this process with as many threads as a service's worker
has. The two take turns text by text, so that a noisy machine treats them alike; `added` is the median of each text's own difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from benchmarks.texts import load_texts
from bgeserve.client import Client
from bgeserve.models.embedder import load_embedder
from bgeserve.models.runtime import worker_init
from bgeserve.settings import EmbedderSettings

BUDGET_MS = 6.0
"""Meant to be added at most, at p50."""
WARM_UP = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--texts", type=Path, help="texts to run on; default: the standard library's docstrings")
    parser.add_argument("--count", type=int, default=300, help="texts measured")
    args = parser.parse_args()
    texts = load_texts(args.texts)[: args.count + WARM_UP]
    with Client(args.url) as client:
        served = next(model for model in client.models() if model.role == "embedder")
        settings = EmbedderSettings(model=served.model)
        worker_init(settings)
        model = load_embedder(settings)
        ways: dict[str, Callable[[str], object]] = {
            "HTTP": lambda text: client.embed(text, model=served.name),
            "in process": lambda text: model.forward(model.tokenize([text]), [("dense",)]),
        }
        took_ms = {name: [] for name in ways}
        for text in texts:
            for name, way in ways.items():
                took_ms[name].append(_elapsed_ms(way, text))
    measured = {name: times[WARM_UP:] for name, times in took_ms.items()}
    added_ms = median(ours - bare for ours, bare in zip(measured["HTTP"], measured["in process"], strict=True))
    table = Table("one text, one client", *(f"{name} p50 ms" for name in ways), "added p50 ms", "budget ms", "added / budget")
    p50s = (f"{median(times):.2f}" for times in measured.values())
    table.add_row(served.model, *p50s, f"{added_ms:.2f}", f"{BUDGET_MS:.0f}", f"{added_ms / BUDGET_MS:.2f}")
    tokens = median(len(sequence.ids) for sequence in model.tokenize(texts[WARM_UP:]))
    Console(width=140).print(table, f"{len(texts) - WARM_UP} texts, {tokens:.0f} tokens at p50; {describe_machine()}", sep="\n")


def _elapsed_ms(way: Callable[[str], object], text: str) -> float:
    started = perf_counter()
    way(text)
    return 1000 * (perf_counter() - started)


if __name__ == "__main__":
    main()
