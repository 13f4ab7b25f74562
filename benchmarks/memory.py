"""Peak resident memory (VmHWM), each figure from a process of its own that imports and warms up the same way.

    python -m benchmarks.memory [--only texts batches load] [--width 512] [--layers 6] [--batches 2000] [--keep FOLDER]

- texts: a mixed set of docstrings with one text of 8,192 tokens, over that text alone. One random M3, in batches by tokens, on one-thread
  workers, as a CPU replica computes them.
- batches: the same model, after 200 batches and after 2,000, which are the same 200 again and again.
- load: the peak while a checkpoint in shards (float32) is loaded as float32 and as bfloat16 and each weight is read once, over its
  weights in that dtype and one shard; without what the process had before (the interpreter, torch, transformers). Mapped files count
  where they are in memory, although the system may drop them whenever it needs the room; `private` is what it may not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_machine
from benchmarks.random_checkpoints import RANDOM, Size, located
from benchmarks.resident import MIB, PrivatePeak, forget_peak, peak, resident
from benchmarks.texts import load_texts
from benchmarks.timing import CORES, run_on_workers
from bgeserve.models.checkpoint import Checkpoint
from bgeserve.models.embedder import PackedEmbedder, load_embedder
from bgeserve.models.loading import load_transformer
from bgeserve.models.tokenizing import TokenSequence
from bgeserve.settings import EmbedderSettings

Measured = dict[str, int]
Batch = list[TokenSequence]

LONG_TOKENS = 8192
MIXED_TEXTS = 400
WARM_UP_BATCHES = 4
EARLY_BATCHES = 200


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    if args.child is not None:
        print(json.dumps(_CHILDREN[args.child](args)))
        return
    print(describe_machine())
    with tempfile.TemporaryDirectory() as temporary:
        keep: Path = args.keep or Path(temporary)
        for name in args.only:
            size = Size() if name == "load" else Size(args.width, args.layers)
            model = args.load_model if name == "load" else "bge-m3"
            with located(f"{RANDOM}{model}", keep / ("full" if name == "load" else "narrow"), size) as folder:
                _REPORTS[name](Path(folder), args)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=_REPORTS, default=list(_REPORTS))
    parser.add_argument("--keep", type=Path, help="folder that the checkpoints stay in; default: made anew each time")
    parser.add_argument("--width", type=int, default=512, help="hidden size of the M3 that computes")
    parser.add_argument("--layers", type=int, default=6, help="of the M3 that computes")
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--load-model", default="bge-m3", help="name of the catalogue, in its real size")
    parser.add_argument("--child", choices=_CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", default="float32", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def in_a_process(child: str, folder: Path, **options: object) -> Measured:
    command = [sys.executable, "-m", "benchmarks.memory", "--child", child, "--folder", str(folder)]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def report_texts(folder: Path, args: argparse.Namespace) -> None:
    alone, mixed = in_a_process("long", folder), in_a_process("mixed", folder)
    print(f"\none text of {LONG_TOKENS} tokens, hidden size {args.width}, {args.layers} layers, float32, {CORES} workers")
    for name, measured in (("that text alone", alone), (f"with {MIXED_TEXTS} others", mixed)):
        print(f"{name:24} peak {measured['peak'] / MIB:8,.0f} MiB, {(measured['peak'] - measured['loaded']) / MIB:6,.0f} above the weights")
    print(f"{'mixed / alone':24} {mixed['peak'] / alone['peak']:13.3f} (goal at most 1.1)")


def report_batches(folder: Path, args: argparse.Namespace) -> None:
    measured = in_a_process("batches", folder, batches=args.batches)
    print(f"\n{args.batches:,} batches of docstrings, hidden size {args.width}, {args.layers} layers, float32, {CORES} workers")
    for count, at in ((EARLY_BATCHES, "early"), (args.batches, "peak")):
        print(f"after {count:6,} batches     peak {measured[at] / MIB:8,.0f} MiB")
    print(f"{'late / early':24} {measured['peak'] / measured['early']:13.3f} (goal: flat)")


def report_load(folder: Path, args: argparse.Namespace) -> None:
    files = Checkpoint.read(folder).weight_files
    shard = max(file.stat().st_size for file in files)
    print(f"\nloading {args.load_model}: {len(files)} shards in float32, the largest {shard / MIB:,.0f} MiB")
    for dtype in ("float32", "bfloat16"):
        measured = in_a_process("load", folder, dtype=dtype)
        allowed = measured["weights"] + shard
        above, private = (measured[name] - measured[f"start_{name}"] for name in ("peak", "private"))
        print(
            f"as {dtype:9} weights {measured['weights'] / MIB:6,.0f} MiB; above the start: peak {above / MIB:6,.0f} MiB, "
            f"private {private / MIB:6,.0f} MiB; over weights and one shard {above / allowed:.2f}, {private / allowed:.2f} (goal 1)"
        )


def measure_long(args: argparse.Namespace) -> Measured:
    return _measure_batches(args, lambda batches, long: [[long]])


def measure_mixed(args: argparse.Namespace) -> Measured:
    """The long text comes in the middle."""
    return _measure_batches(args, lambda batches, long: [*batches[: len(batches) // 2], [long], *batches[len(batches) // 2 :]])


def _measure_batches(args: argparse.Namespace, chosen: Callable[[list[Batch], TokenSequence], list[Batch]]) -> Measured:
    embedder, settings = _load(args.folder)
    loaded = resident()
    texts = load_texts()
    batches = _by_tokens(embedder.tokenize(texts[:MIXED_TEXTS]), settings.resolved_max_batch_tokens)
    (long,) = embedder.tokenize(["\n".join(texts[:MIXED_TEXTS])])
    assert long.cost == LONG_TOKENS
    _compute(embedder, settings, batches[:WARM_UP_BATCHES])
    _compute(embedder, settings, chosen(batches, long))
    return {"loaded": loaded, "peak": peak()}


def measure_many(args: argparse.Namespace) -> Measured:
    embedder, settings = _load(args.folder)
    batches = _by_tokens(embedder.tokenize(load_texts()), settings.resolved_max_batch_tokens)
    batches = [batches[i % min(EARLY_BATCHES, len(batches))] for i in range(args.batches)]
    _compute(embedder, settings, batches[:EARLY_BATCHES])
    early = peak()
    _compute(embedder, settings, batches[EARLY_BATCHES:])
    return {"early": early, "peak": peak()}


def measure_load(args: argparse.Namespace) -> Measured:
    checkpoint = Checkpoint.read(args.folder)
    forget_peak()
    start, start_private = resident(), resident("RssAnon")
    with PrivatePeak() as private:
        model = load_transformer(checkpoint, torch.device("cpu"), getattr(torch, args.dtype))
        weights = sum(parameter.nbytes for parameter in model.parameters())
        for parameter in model.parameters():
            parameter.amax()
    return {"weights": weights, "start_peak": start, "peak": peak(), "start_private": start_private, "private": private.most}


def _load(folder: Path) -> tuple[PackedEmbedder, EmbedderSettings]:
    settings = EmbedderSettings(model=str(folder), dtype="float32", cpus=CORES)
    embedder = load_embedder(settings)
    forget_peak()  # of the fingerprint, which maps each weight file whole
    return embedder, settings


def _by_tokens(sequences: Sequence[TokenSequence], most: int) -> list[Batch]:
    batches: list[Batch] = [[]]
    for sequence in sequences:
        if batches[-1] and sum(other.cost for other in batches[-1]) + sequence.cost > most:
            batches.append([])
        batches[-1].append(sequence)
    return batches


def _compute(embedder: PackedEmbedder, settings: EmbedderSettings, batches: Sequence[Batch]) -> None:
    def compute(batch: Batch) -> None:
        embedder.forward(batch, [("dense",)] * len(batch))

    run_on_workers(settings, compute, batches)


_REPORTS: Mapping[str, Callable[[Path, argparse.Namespace], None]] = {
    "texts": report_texts,
    "batches": report_batches,
    "load": report_load,
}
_CHILDREN: Mapping[str, Callable[[Any], Measured]] = {
    "long": measure_long,
    "mixed": measure_mixed,
    "batches": measure_many,
    "load": measure_load,
}

if __name__ == "__main__":
    main()
