"""LLM rerankers on ragged (query, passage) pairs: ours, packed, against FlagEmbedding's padded loop, and cut or compressed against full.

    python -m benchmarks.rerank [--only llm layerwise lightweight] [--pairs 64] [--peer-batch 16] [--rounds 3] [--keep FOLDER]

Random checkpoints of the published depth and vocabulary, but narrow (`_WIDTHS`), so that they fit; float32; medians of runs in turns.
Ours (tokenising included): pairs in arrival order, cut into batches by tokens, on one-thread workers as a CPU replica has them.
Theirs: all cores.

- llm (18 layers of gemma-2b): FlagLLMReranker itself.
- layerwise (40 layers of MiniCPM), lightweight (42 of gemma2-9b): FlagEmbedding 1.4.2 cannot construct these under transformers 5. In
  its place the same transformers model runs as its loop would run it (`padded_loop.py`): sorted by length, padded to a multiple of 8,
  all layers, the first batch twice; without tokenising, which favours it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import peers
from benchmarks.machine import describe_machine
from benchmarks.padded_loop import padded_loop
from benchmarks.random_checkpoints import RANDOM, Size, located
from benchmarks.texts import load_texts
from benchmarks.timing import CORES, Runs, Seconds, median_ratio, run_on_workers, time_in_turns
from bgeserve.models.reranker import load_reranker
from bgeserve.models.scoring import Scorer
from bgeserve.settings import RerankerSettings
from bgeserve.types import RerankerOptions

NAMES = {
    "llm": "bge-reranker-v2-gemma",
    "layerwise": "bge-reranker-v2-minicpm-layerwise",
    "lightweight": "bge-reranker-v2.5-gemma2-lightweight",
}
_WIDTHS = {"llm": 512, "layerwise": 384, "lightweight": 448}
"""Hidden sizes that keep the published size of an attention head; the others shrink in proportion."""

FULL = "full depth"
HALF = "half depth"
FLAGEMBEDDING = "FlagEmbedding"
STAND_IN = "FlagEmbedding's loop, stood in for"
GOALS = {FLAGEMBEDDING: "goal at least 4", STAND_IN: "goal at least 4", HALF: "goal of layerwise at most 0.55"}

Pairs = Sequence[tuple[str, str]]


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    print(describe_machine())
    pairs = load_pairs(args.pairs)
    for kind in args.only:
        size = Size(args.width or _WIDTHS[kind], args.layers)
        with located(f"{RANDOM}{NAMES[kind]}", args.keep, size) as folder:
            measure(kind, Path(folder), pairs, args)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--keep", type=Path, help="folder that the checkpoints stay in; default: made anew each time")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=512, help="of a pair, for all")
    parser.add_argument("--peer-batch", type=int, default=16, help="pairs of one of their batches (their default, 128, does not fit)")
    parser.add_argument("--width", type=int, help="hidden size; default: by kind")
    parser.add_argument("--layers", type=int, help="default: as many as published")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args(arguments)


def load_pairs(count: int) -> list[tuple[str, str]]:
    """Each docstring with the first line of another one as its query."""
    texts = load_texts()[: 2 * count]
    return [(query.splitlines()[0], passage) for query, passage in zip(texts[:count], texts[count:], strict=True)]


def measure(kind: str, folder: Path, pairs: Pairs, args: argparse.Namespace) -> None:
    settings = RerankerSettings(model=str(folder), dtype="float32", cpus=CORES, max_tokens=args.max_tokens)
    scorer, rules = load_reranker(settings)
    items = tokenize(scorer, pairs, rules.resolve(None))
    costs = [item.cost for item in items]
    print(f"\n{kind}: {folder.name}, hidden size {args.width or _WIDTHS[kind]}, {settings.resolved_workers} workers")
    print(f"{len(pairs)} pairs: {sum(costs)} tokens, mean {sum(costs) / len(costs):.0f}, longest {max(costs)}")
    runs = {name: partial(run_packed, scorer, settings, pairs, options) for name, options in ways(scorer, rules.resolve(None)).items()}
    if kind == "llm":
        peer = peers.flagembedding_llm_reranker(folder, args.peer_batch, args.max_tokens)
        theirs: Runs = {FLAGEMBEDDING: lambda: peer(pairs)}
    else:
        theirs = {STAND_IN: padded_loop(folder, [item.pair.sequence.ids for item in items], args.peer_batch)}
    print_table(sum(costs), time_in_turns({**runs, **theirs}, args.rounds))


def ways(scorer: Scorer[Any], defaults: RerankerOptions) -> dict[str, RerankerOptions]:
    """What one request may ask of this reranker: its full depth, half of it, and that with the passages compressed from early on."""
    if not scorer.info.cutoffs:
        return {FULL: defaults}
    half = (scorer.info.cutoffs[-1] // 2,)
    asked = {FULL: defaults, HALF: RerankerOptions(cutoff_layers=half)}
    if "compress_ratio" in scorer.info.options:
        asked |= {
            f"{HALF}, ratio {ratio}": RerankerOptions(cutoff_layers=half, compress_layers=(8,), compress_ratio=ratio) for ratio in (2, 4, 8)
        }
    return asked


def tokenize(scorer: Scorer[Any], pairs: Pairs, options: RerankerOptions) -> list[Any]:
    return [item for query, passage in pairs for item in scorer.tokenize(query, [passage], options)]


def run_packed(scorer: Scorer[Any], settings: RerankerSettings, pairs: Pairs, options: RerankerOptions) -> None:
    batches: list[list[Any]] = [[]]
    room = settings.resolved_max_batch_tokens
    for item in tokenize(scorer, pairs, options):
        if batches[-1] and item.cost > room:
            batches.append([])
            room = settings.resolved_max_batch_tokens
        batches[-1].append(item)
        room -= item.cost
    run_on_workers(settings, scorer.forward, batches)


def print_table(tokens: int, seconds: Seconds) -> None:
    for name, took in seconds.items():
        line = f"{name:34} {median(took):8.2f} s {tokens / median(took):8,.0f} tok/s"
        if name != FULL:
            compared = "time / full" if name.startswith(HALF) else "ours / theirs"
            line += f"   {compared} {median_ratio(seconds, name, FULL):5.2f}"
        print(line + (f" ({GOALS[name]})" if name in GOALS else ""))


if __name__ == "__main__":
    main()
