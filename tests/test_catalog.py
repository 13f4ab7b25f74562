"""The catalogue's rows against FlagEmbedding's own two mappings, and against what the models' cards say."""

from __future__ import annotations

import string
from typing import get_args

import pytest
from FlagEmbedding import (
    BGEM3FlagModel,
    FlagICLModel,
    FlagLLMReranker,
    FlagReranker,
    LayerWiseFlagLLMReranker,
    LightWeightFlagLLMReranker,
)
from FlagEmbedding.inference.embedder.model_mapping import AUTO_EMBEDDER_MAPPING
from FlagEmbedding.inference.reranker.model_mapping import AUTO_RERANKER_MAPPING

from bgeserve.catalog import EMBEDDERS, PROMPTS, RERANKERS, EmbedderRow, Family, RerankerRow, find_embedder, find_reranker

OUR_OWN = {"all-MiniLM-L6-v2", "bge-m3-unsupervised", "llm-embedder"}
"""Not in FlagEmbedding's mapping: its m3 and BERT classes run the last two when they are told to."""
NEED_CODE_OF_THEIR_OWN = {
    # transformers' Qwen2 is causal; these attend in both directions, by code in their folders.
    "gte-Qwen2-7B-instruct", "gte-Qwen2-1.5B-instruct", "gte-Qwen1.5-7B-instruct",
    # "NewModel" of Alibaba-NLP/new-impl: no class in transformers.
    "gte-multilingual-base", "gte-large-en-v1.5", "gte-base-en-v1.5",
}  # fmt: skip
RERANKERS_WITH_CODE_OF_THEIR_OWN = {
    # XLM-R with flash attention and rotary positions, JinaBERT with ALiBi, and "NewModel" again.
    "jina-reranker-v2-base-multilingual", "jina-reranker-v1-turbo-en", "gte-multilingual-reranker-base",
}  # fmt: skip
MARKED_WITHOUT_NEED = {"bge-code-v1"}
"""Upstream sets trust_remote_code; its weights are transformers' own Qwen2, and a parity test shows it."""
KINDS = {
    FlagReranker: "cross_encoder",
    FlagLLMReranker: "llm",
    LayerWiseFlagLLMReranker: "layerwise",
    LightWeightFlagLLMReranker: "lightweight",
}


def short(row: EmbedderRow | RerankerRow) -> str:
    return row.name.rpartition("/")[2]


BY_NAME = {short(row): row for row in EMBEDDERS}


def test_every_embedder_that_flagembedding_knows_has_a_row() -> None:
    assert set(BY_NAME) == (AUTO_EMBEDDER_MAPPING.keys() - NEED_CODE_OF_THEIR_OWN) | OUR_OWN


def test_what_has_no_row_is_marked_upstream_as_needing_code() -> None:
    marked = {name for name, config in AUTO_EMBEDDER_MAPPING.items() if config.trust_remote_code}
    assert marked == NEED_CODE_OF_THEIR_OWN | MARKED_WITHOUT_NEED
    assert AUTO_RERANKER_MAPPING.keys() >= RERANKERS_WITH_CODE_OF_THEIR_OWN


@pytest.mark.parametrize("row", [row for row in EMBEDDERS if short(row) not in OUR_OWN], ids=short)
def test_row_agrees_with_flagembedding(row: EmbedderRow) -> None:
    theirs = AUTO_EMBEDDER_MAPPING[short(row)]
    assert row.pooling == theirs.pooling_method.value
    assert row.query_format == theirs.query_instruction_format
    assert ("sparse" in row.outputs) == ("multi_vector" in row.outputs) == (theirs.model_class is BGEM3FlagModel)
    assert bool(row.example_format) == bool(row.query_suffix) == (theirs.model_class is FlagICLModel)
    assert (row.pooling == "last_token") == (row.family not in ("bert", "xlm-roberta"))


def test_in_context_examples_are_written_as_flagembedding_does() -> None:
    import inspect

    defaults = {name: one.default for name, one in inspect.signature(FlagICLModel.__init__).parameters.items()}
    assert BY_NAME["bge-en-icl"].example_format == defaults["examples_instruction_format"]
    assert BY_NAME["bge-en-icl"].query_suffix == defaults["suffix"]


def test_every_reranker_that_flagembedding_knows_has_a_row_of_its_kind() -> None:
    theirs = {name: KINDS[config.model_class] for name, config in AUTO_RERANKER_MAPPING.items()}
    assert {short(row): row.kind for row in RERANKERS} == {
        name: kind for name, kind in theirs.items() if name not in RERANKERS_WITH_CODE_OF_THEIR_OWN
    }
    assert PROMPTS.keys() == {"llm", "layerwise", "lightweight"}


def test_names_are_unique() -> None:
    assert len({short(row) for row in (*EMBEDDERS, *RERANKERS)}) == len(EMBEDDERS) + len(RERANKERS)


@pytest.mark.parametrize("row", [*EMBEDDERS, *RERANKERS], ids=short)
def test_facts_are_in_range(row: EmbedderRow | RerankerRow) -> None:
    assert row.family in get_args(Family)
    assert 1 < row.parameters < 20_000
    assert row.max_tokens in (256, 512, 1024, 4096, 8192, 32768)
    assert row.licence
    assert row.languages
    if isinstance(row, EmbedderRow):
        assert row.dimensions % 64 == 0
        assert len(list(string.Formatter().parse(row.query_format))) >= 2
        assert row.query_format.endswith("{}")  # the query ends it


@pytest.mark.parametrize("model", ["BAAI/bge-m3", "/models/bge-m3/", "bge-m3"])
def test_a_folder_with_a_models_name_has_its_row(model: str) -> None:
    row = find_embedder(model)
    assert row is not None
    assert row.name == "BAAI/bge-m3"
    assert find_reranker(model) is None


def test_published_instructions() -> None:
    instructions = {name: (row.query_instruction, row.document_instruction) for name, row in BY_NAME.items()}
    web_search = "Given a web search query, retrieve relevant passages that answer the query"
    assert instructions["bge-large-en-v1.5"] == ("Represent this sentence for searching relevant passages: ", "")
    assert instructions["bge-small-zh"] == ("为这个句子生成表示以用于检索相关文章：", "")
    assert instructions["llm-embedder"] == (
        "Represent this query for retrieving relevant documents: ",
        "Represent this document for retrieval: ",
    )
    assert instructions["e5-base"] == ("query: ", "passage: ")
    assert instructions["bge-multilingual-gemma2"] == instructions["bge-en-icl"] == (f"{web_search}.", "")
    assert instructions["e5-mistral-7b-instruct"] == instructions["Qwen3-Embedding-0.6B"] == (web_search, "")
    assert instructions["bge-m3"] == instructions["gte-large"] == instructions["bge-code-v1"] == ("", "")


def test_an_unknown_name_has_no_row() -> None:
    assert find_embedder("someone/else") is None
    assert find_reranker("BAAI/bge-reranker") is None
