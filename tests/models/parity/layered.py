"""The two rerankers with a head at every layer, against scores that FlagEmbedding's own classes gave under transformers 4.46
(tests/golden/make_golden.py: they do not construct under transformers 5)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgeserve.types import RerankerOptions
from tests.models.loaded import Reranker
from tests.models.parity import layer_mutants as lm
from tests.models.parity import mutants as m
from tests.models.parity.case import LOGIT_TOLERANCE, Arrays, Case, Computing

GOLDEN = Path(__file__).parents[2] / "golden"
DEFAULT_PROMPTS = ("layerwise", "lightweight")


@cache
def golden(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def cases_of(name: str) -> dict[str, dict[str, Any]]:
    """By what was asked. Of the lightweight reranker only those with eager attention: sdpa, which upstream takes by default under
    transformers 4.46, leaves Gemma2's soft cap out without a word."""
    return {_asked(case): case for case in golden(name)["cases"] if case.get("attention", "eager") == "eager"}


def _asked(case: Mapping[str, Any]) -> str:
    layers = case["cutoff_layers"]
    parts = [f"layers {', '.join(map(str, layers))}" if len(layers) > 1 else f"layer {layers[0]}"]
    if "compress_ratio" in case:
        parts.append(f"compressed by {case['compress_ratio']} at {' and '.join(map(str, case['compress_layers']))}")
    if case["prompt"] not in DEFAULT_PROMPTS:
        parts.append("prompt of the request")
    return "; ".join(parts)


def golden_scores(folder: Path, name: str) -> Arrays:
    """[layers, pairs] by what was asked, once the checkpoint is seen to be the one that was scored."""
    for file, expected in golden(name)["provenance"]["sha256"].items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == expected, f"{file} is not what {name}.json was made with"
    return {asked: np.atleast_2d(np.array(case["scores"])) for asked, case in cases_of(name).items()}


def our_scores(folder: Path, name: str) -> Computing:
    model = Reranker(folder, max_tokens=golden(name)["max_length"])
    for asked, case in cases_of(name).items():
        yield asked, _scores(model, case, name)


def _scores(model: Reranker, case: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    items = model.items_of(golden(name)["pairs"], options_of(case, name))
    layers = case["cutoff_layers"]
    scored = model.forward(items)
    if len(layers) == 1:
        return np.array([[one.score for one in scored]])
    return np.array([[one.parts[f"layer_{layer}"] for one in scored] for layer in layers])


def options_of(case: Mapping[str, Any], name: str) -> RerankerOptions:
    return RerankerOptions(
        prompt=None if case["prompt"] in DEFAULT_PROMPTS else golden(name)["prompts"][case["prompt"]],
        cutoff_layers=case["cutoff_layers"],
        compress_layers=case.get("compress_layers"),
        compress_ratio=case.get("compress_ratio"),
    )


def _provenance(name: str) -> str:
    versions = golden(name)["provenance"]["versions"]
    return f"FlagEmbedding {versions['FlagEmbedding']}, transformers {versions['transformers']} ({name}.json)"


MUTANTS = (
    m.shift_positions, m.mix_neighbours, m.see_later_tokens, m.cut_at_half, m.cut_one_early, m.ignore_prompt, m.drop_separator,
    m.drop_begin_of_text, lm.first_head_for_all, lm.skip_last_norm, lm.read_one_layer_early, lm.read_last_but_one_row,
    lm.readouts_in_order_of_depth,
)  # fmt: skip

CASES = (
    Case(
        "bge-reranker-v2-minicpm-layerwise", partial(golden_scores, name="layerwise"), partial(our_scores, name="layerwise"),
        LOGIT_TOLERANCE,
        (
            *MUTANTS, lm.head_of_the_place_in_the_list, lm.drop_residual_multiplier, lm.drop_embedding_multiplier,
            lm.drop_attention_multiplier,
        ),
        where=_provenance("layerwise"),
    ),
    Case(
        "bge-reranker-v2.5-gemma2-lightweight", partial(golden_scores, name="lightweight"), partial(our_scores, name="lightweight"),
        LOGIT_TOLERANCE,
        (
            *MUTANTS, m.skip_soft_cap, m.skip_window, m.widen_window, m.narrow_window, m.scale_by_head_size, m.group_heads_by_turns,
            lm.skip_cap_of_logits, lm.compress_one_layer_late, lm.compress_query_too, lm.compress_prompt_too,
            lm.compress_at_first_layer_alone, lm.never_compress, lm.forget_last_shorter_run, lm.keep_positions,
        ),
        where=_provenance("lightweight"),
    ),
)  # fmt: skip
