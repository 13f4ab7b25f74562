"""LLM embedders: documents, queries under an instruction, and in-context examples."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from bgeserve.types import EmbedderOptions, Example
from tests.checkpoints import TEXTS
from tests.models.loaded import dense, embedder
from tests.models.parity import mutants as m
from tests.models.parity.case import VECTOR_TOLERANCE, Arrays, Case, Computing
from tests.models.texts import AWKWARD, SPECIAL_TOKENS, ragged

MAX_TOKENS = 256
ALL_TEXTS = [*TEXTS, *AWKWARD, *ragged(12, 120)]
# Upstream cuts a query of bge-en-icl as ids, decodes it and tokenises it again between examples and suffix; special tokens that stand in
# the text itself do not survive that under transformers 5. Here the text itself is cut, which gives the ids that it had.
ICL_QUERIES = [text for text in ALL_TEXTS if text != SPECIAL_TOKENS]

WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
REQUESTED = "Given a question, find what answers it."
TAGGED = "<instruct>{}\n<query>{}"
LABELLED = "Instruct: {}\nQuery: {}"
EXAMPLES = (
    Example("what is a cat", "a pet that purrs"),
    Example("parse arguments", "use argparse", "Given a task, find code that does it."),
)


def flag_llm(folder: Path, instruction: str | None, query_format: str) -> Arrays:
    from FlagEmbedding import FlagLLMModel

    model = FlagLLMModel(
        str(folder), use_fp16=False, devices="cpu", query_instruction_for_retrieval=instruction, query_instruction_format=query_format,
        query_max_length=MAX_TOKENS, passage_max_length=MAX_TOKENS,
    )  # fmt: skip
    found: dict[str, Any] = {
        "documents": model.encode_corpus(ALL_TEXTS, batch_size=8),
        "queries": model.encode_queries(ALL_TEXTS, batch_size=8),
    }
    model.query_instruction_for_retrieval = REQUESTED
    return {**found, "queries, instruction of the request": model.encode_queries(ALL_TEXTS, batch_size=8)}


def our_llm(folder: Path) -> Computing:
    model = embedder(folder, max_tokens=MAX_TOKENS)
    yield "documents", dense(model, ALL_TEXTS)
    yield "queries", dense(model, ALL_TEXTS, "query")
    yield "queries, instruction of the request", dense(model, ALL_TEXTS, "query", EmbedderOptions(instruction=REQUESTED))


def flag_icl(folder: Path) -> Arrays:
    from FlagEmbedding import FlagICLModel

    model = FlagICLModel(
        str(folder), use_fp16=False, devices="cpu", query_instruction_for_retrieval=f"{WEB_SEARCH}.",
        query_max_length=MAX_TOKENS, passage_max_length=MAX_TOKENS,
    )  # fmt: skip
    found: dict[str, Any] = {
        "documents": model.encode_corpus(ALL_TEXTS, batch_size=8),
        "queries": model.encode_queries(ICL_QUERIES, batch_size=8),
    }
    model.query_instruction_for_retrieval = REQUESTED
    found["queries, instruction of the request"] = model.encode_queries(ICL_QUERIES, batch_size=8)
    model.set_examples([
        {"query": one.query, "response": one.response, **({} if one.instruction is None else {"instruct": one.instruction})}
        for one in EXAMPLES
    ])  # fmt: skip
    return {**found, "queries, examples of the request": model.encode_queries(ICL_QUERIES, batch_size=8)}


def our_icl(folder: Path) -> Computing:
    model = embedder(folder, max_tokens=MAX_TOKENS)
    yield "documents", dense(model, ALL_TEXTS)
    yield "queries", dense(model, ICL_QUERIES, "query")
    yield "queries, instruction of the request", dense(model, ICL_QUERIES, "query", EmbedderOptions(instruction=REQUESTED))
    yield "queries, examples of the request", dense(model, ICL_QUERIES, "query", EmbedderOptions(REQUESTED, EXAMPLES))


MUTANTS = (
    m.shift_positions, m.mix_neighbours, m.ignore_scaling, m.see_later_tokens, m.group_heads_by_turns, m.pool_cls, m.read_one_token_early,
    m.treat_queries_as_documents, m.drop_instruction, m.ignore_request, m.cut_one_early,
)  # fmt: skip
WINDOW_MUTANTS = (m.skip_window, m.widen_window, m.narrow_window)

CASES = (
    Case(
        "bge-multilingual-gemma2", partial(flag_llm, instruction=f"{WEB_SEARCH}.", query_format=TAGGED), our_llm, VECTOR_TOLERANCE,
        (*MUTANTS, *WINDOW_MUTANTS, m.skip_soft_cap, m.scale_by_head_size),
    ),
    Case(
        "bge-reasoner-embed-qwen3-8b-0923", partial(flag_llm, instruction=WEB_SEARCH, query_format=LABELLED), our_llm, VECTOR_TOLERANCE,
        MUTANTS,
    ),
    Case(
        "bge-code-v1", partial(flag_llm, instruction=None, query_format=TAGGED), our_llm, VECTOR_TOLERANCE,
        (m.shift_positions, m.see_later_tokens, m.group_heads_by_turns, m.read_one_token_early, m.drop_instruction, m.ignore_request),
    ),
    Case(
        "bge-en-icl", flag_icl, our_icl, VECTOR_TOLERANCE,
        (*MUTANTS, *WINDOW_MUTANTS, m.drop_examples, m.one_instruction_for_all_examples, m.drop_suffix),
    ),
)  # fmt: skip
