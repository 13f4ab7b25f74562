from __future__ import annotations

import pytest
from FlagEmbedding import BGEM3FlagModel, FlagModel, FlagReranker
from FlagEmbedding.inference.embedder.model_mapping import AUTO_EMBEDDER_MAPPING
from FlagEmbedding.inference.reranker.model_mapping import AUTO_RERANKER_MAPPING

from bgeserve.catalog import EMBEDDERS, RERANKERS, EmbedderRow, RerankerRow, find_embedder, find_reranker

OUR_OWN = {"all-MiniLM-L6-v2", "bge-m3-unsupervised"}
ENCODERS = {name for name, config in AUTO_EMBEDDER_MAPPING.items() if config.model_class in (FlagModel, BGEM3FlagModel)}
NEEDS_REMOTE_CODE = {name for name, config in AUTO_EMBEDDER_MAPPING.items() if config.trust_remote_code}
RERANKERS_WITH_OWN_CODE = {"jina-reranker-v2-base-multilingual", "gte-multilingual-reranker-base", "jina-reranker-v1-turbo-en"}


def short(row: EmbedderRow | RerankerRow) -> str:
    return row.name.rpartition("/")[2]


def test_every_encoder_that_flagembedding_knows_has_a_row() -> None:
    assert {short(row) for row in EMBEDDERS} == (ENCODERS - NEEDS_REMOTE_CODE) | OUR_OWN


@pytest.mark.parametrize("row", [row for row in EMBEDDERS if short(row) not in OUR_OWN], ids=short)
def test_row_agrees_with_flagembedding(row: EmbedderRow) -> None:
    theirs = AUTO_EMBEDDER_MAPPING[short(row)]
    assert row.pooling == theirs.pooling_method.value
    assert row.query_instruction_format == theirs.query_instruction_format
    assert ("sparse" in row.outputs) == ("multi_vector" in row.outputs) == (theirs.model_class is BGEM3FlagModel)


def test_every_encoder_reranker_has_a_row() -> None:
    theirs = {name for name, config in AUTO_RERANKER_MAPPING.items() if config.model_class is FlagReranker}
    assert {short(row) for row in RERANKERS} == theirs - RERANKERS_WITH_OWN_CODE


def test_names_are_unique() -> None:
    assert len({short(row) for row in (*EMBEDDERS, *RERANKERS)}) == len(EMBEDDERS) + len(RERANKERS)


@pytest.mark.parametrize("model", ["BAAI/bge-m3", "/models/bge-m3/", "bge-m3"])
def test_a_folder_with_a_models_name_has_its_row(model: str) -> None:
    row = find_embedder(model)
    assert row is not None
    assert row.name == "BAAI/bge-m3"
    assert find_reranker(model) is None


def test_published_instructions() -> None:
    instructions = {short(row): (row.query_instruction, row.document_instruction) for row in EMBEDDERS}
    assert instructions["bge-large-en-v1.5"] == ("Represent this sentence for searching relevant passages: ", "")
    assert instructions["bge-small-zh"] == ("为这个句子生成表示以用于检索相关文章：", "")
    assert instructions["e5-base"] == ("query: ", "passage: ")
    assert instructions["bge-m3"] == instructions["gte-large"] == ("", "")


def test_an_unknown_name_has_no_row() -> None:
    assert find_embedder("someone/else") is None
    assert find_reranker("BAAI/bge-reranker") is None
