"""Texts as long as those of known corpora, made of the words at hand: for corpora whose own texts may not be passed on.

A profile is a JSON file: for each corpus percentiles of its passages' and queries' lengths in BERT tokens, under `bert_uncased_tokens`.
"""

from __future__ import annotations

import json
import random
from bisect import bisect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks.serving.numbered import NUMBER_TOKENS

COUNT = 4000
SPECIAL_TOKENS = 2
POINTS = {"p1": 1, "p5": 5, "p10": 10, "p25": 25, "p50": 50, "p75": 75, "p90": 90, "p95": 95, "p99": 99, "max": 100}


def ragged_texts(profile: Path, names: Sequence[str], corpus: Sequence[str], tokenizer: Tokenizer, max_tokens: int) -> list[str]:
    """Half of them as long as passages, half as long as queries; without names of all corpora that have both. The same ones every time."""
    kinds = _kinds(json.loads(profile.read_text()), names)
    words = tokenizer.encode("\n".join(corpus), add_special_tokens=False)
    joined, offsets = "\n".join(corpus), words.offsets
    draw = random.Random(0)
    texts: list[str] = []
    for _ in range(COUNT):
        tokens = max(1, min(max_tokens, draw_length(draw.choice(kinds), draw)) - SPECIAL_TOKENS - NUMBER_TOKENS)
        first = draw.randrange(len(offsets) - tokens)
        texts.append(joined[offsets[first][0] : offsets[first + tokens - 1][1]])
    return texts


def draw_length(percentiles: Mapping[str, float], draw: random.Random) -> int:
    """Between the percentiles that are known, evenly."""
    percents, lengths = [0, *POINTS.values()], [percentiles["p1"], *(percentiles[name] for name in POINTS)]
    at = draw.uniform(0, 100)
    above = min(bisect(percents, at), len(percents) - 1)
    share = (at - percents[above - 1]) / (percents[above] - percents[above - 1])
    return round(lengths[above - 1] + share * (lengths[above] - lengths[above - 1]))


def _kinds(profiles: Mapping[str, Any], names: Sequence[str]) -> list[Mapping[str, float]]:
    known = [name for name, profile in profiles.items() if {"passages", "queries"} <= profile.keys()]
    if unknown := set(names) - set(known):
        raise SystemExit(f"no such profile: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [profiles[name][kind]["bert_uncased_tokens"] for name in names or known for kind in ("passages", "queries")]
