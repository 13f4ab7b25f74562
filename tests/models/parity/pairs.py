"""Rerankers that FlagEmbedding runs here: cross-encoders, the LLM reranker, and M3's vectors compared."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bgeserve.types import OUTPUTS, Output, RerankerOptions
from tests.checkpoints import TEXTS
from tests.models.loaded import Reranker
from tests.models.parity import mutants as m
from tests.models.parity import vector_mutants as v
from tests.models.parity.case import LOGIT_TOLERANCE, VECTOR_TOLERANCE, Arrays, Case, Computing
from tests.models.texts import AWKWARD, ragged

Pairs = list[tuple[str, str]]

MAX_PAIR_TOKENS = 64
QUERIES = ("how do I parse arguments", "今天天气很好", "", "read and write files " * 40)
PASSAGES = [*TEXTS, *AWKWARD, *ragged(6, 80)]
PAIRS = [(query, passage) for query in QUERIES for passage in PASSAGES]

# --- cross-encoders ---------------------------------------------------------------------------------------------------------


@cache
def pairs_that_survive(folder: Path) -> Pairs:
    """FlagEmbedding's way from ids to text and back under transformers 5; it defines the others on ids too."""
    from transformers import AutoTokenizer

    ours = Reranker(folder, max_tokens=MAX_PAIR_TOKENS)
    theirs = AutoTokenizer.from_pretrained(folder)
    kept: Pairs = []
    for query in QUERIES:
        for passage, item in zip(PASSAGES, ours.items(query, PASSAGES), strict=True):
            q = theirs(query, add_special_tokens=False, truncation=True, max_length=MAX_PAIR_TOKENS * 3 // 4)["input_ids"]
            p = theirs(passage, add_special_tokens=False, truncation=True, max_length=MAX_PAIR_TOKENS)["input_ids"]
            again = theirs(theirs.decode(q), theirs.decode(p), truncation="only_second", max_length=MAX_PAIR_TOKENS)["input_ids"]
            if again == item.ids.tolist():
                kept.append((query, passage))
    return kept


def flag_reranker(folder: Path) -> Arrays:
    from FlagEmbedding import FlagReranker

    model = FlagReranker(str(folder), use_fp16=False, devices="cpu")
    return {"logits": np.array(model.compute_score(pairs_that_survive(folder), batch_size=8, max_length=MAX_PAIR_TOKENS))}


def our_cross_encoder(folder: Path) -> Computing:
    pairs = pairs_that_survive(folder)
    model = Reranker(folder, max_tokens=MAX_PAIR_TOKENS)
    yield "logits", np.array(model.scores(model.items_of(pairs)))


# --- LLM reranker -----------------------------------------------------------------------------------------------------------

LLM_MAX_TOKENS = 96
PROMPT = "Is A about B?"
INSTRUCTION = "Question: "


def flag_llm(folder: Path) -> Arrays:
    from FlagEmbedding import FlagLLMReranker

    model = FlagLLMReranker(str(folder), use_fp16=False, devices="cpu")
    found: dict[str, Any] = {
        "logits": model.compute_score(PAIRS, batch_size=16, max_length=LLM_MAX_TOKENS),
        "logits, prompt of the request": model.compute_score(PAIRS, batch_size=16, max_length=LLM_MAX_TOKENS, prompt=PROMPT),
    }
    model.query_instruction_for_rerank = INSTRUCTION
    found["logits, instruction of the request"] = model.compute_score(PAIRS, batch_size=16, max_length=LLM_MAX_TOKENS)
    return found


def our_llm(folder: Path) -> Computing:
    model = Reranker(folder, max_tokens=LLM_MAX_TOKENS)
    asked = {
        "logits": None,
        "logits, prompt of the request": RerankerOptions(prompt=PROMPT),
        "logits, instruction of the request": RerankerOptions(instruction=INSTRUCTION),
    }
    for output, options in asked.items():
        yield output, np.array(model.scores(model.items_of(PAIRS, options)))


# --- vectors ----------------------------------------------------------------------------------------------------------------

VECTOR_PAIRS = [(query, passage) for query in (*TEXTS[:2], TEXTS[6], "word") for passage in (*TEXTS, *AWKWARD[:-1])]
WEIGHTS: dict[str, tuple[float, float, float]] = {"equal weights": (1.0, 1.0, 1.0), "weights .4 .2 .4": (0.4, 0.2, 0.4)}


def flag_hybrid(folder: Path) -> Arrays:
    from FlagEmbedding import BGEM3FlagModel

    model = BGEM3FlagModel(str(folder), use_fp16=False, devices="cpu")
    found: dict[str, Any] = {}
    for name, weights in WEIGHTS.items():
        # One at a time: in a padded batch its padding counts as a cosine of 0, which beats a query token's negative ones.
        scores: Any = model.compute_score(
            VECTOR_PAIRS, batch_size=1, max_query_length=1024, max_passage_length=1024, weights_for_different_modes=list(weights)
        )
        found |= {"dense": scores["dense"], "sparse": scores["sparse"], "multi_vector": scores["colbert"]}
        found[name] = scores["colbert+sparse+dense"]
    return {**found, "late interaction": found["multi_vector"]}


def our_hybrid(folder: Path) -> Computing:
    model = Reranker(folder, scoring="hybrid")  # whose own weights are equal
    scored = model.forward(model.items_of(VECTOR_PAIRS))
    for output in OUTPUTS:
        yield output, np.array([one.parts[output] for one in scored])
    yield "equal weights", np.array([one.score for one in scored])
    weights: dict[Output, float] = dict(zip(OUTPUTS, WEIGHTS["weights .4 .2 .4"], strict=True))
    yield "weights .4 .2 .4", np.array(model.scores(model.items_of(VECTOR_PAIRS, RerankerOptions(weights=weights))))
    late = Reranker(folder, scoring="late_interaction")
    yield "late interaction", np.array(late.scores(late.items_of(VECTOR_PAIRS)))


CASES = (
    *(
        Case(
            name, flag_reranker, our_cross_encoder, LOGIT_TOLERANCE,
            (m.shift_positions, m.mix_neighbours, m.ignore_scaling, m.cut_at_half, m.cut_one_early, m.read_the_rows_first_token),
        )
        for name in ("bge-reranker-base", "bert-reranker")
    ),
    Case(
        "bge-reranker-v2-gemma", flag_llm, our_llm, LOGIT_TOLERANCE,
        (
            m.shift_positions, m.mix_neighbours, m.ignore_scaling, m.see_later_tokens, m.cut_at_half, m.cut_one_early,
            m.read_one_token_early, m.answer_no, m.ignore_prompt, m.ignore_pair_instruction, m.drop_separator, m.drop_begin_of_text,
        ),
    ),
    Case(
        "bge-m3", flag_hybrid, our_hybrid, VECTOR_TOLERANCE,
        (
            m.shift_positions, m.keep_special_weights, m.hidden_states_for_vectors, v.ignore_weights, v.forget_to_divide_by_the_weights,
            v.sum_over_query_vectors, v.best_query_vector_of_each_passage_vector, v.lexical_weights_of_the_passage_alone,
        ),
        about="as a reranker",
    ),
)  # fmt: skip
