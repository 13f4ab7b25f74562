"""A long text is cut at sentence ends, into pieces that are small enough, overlap a little, and make up the whole."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgeserve.chunking import Span, chunk_spans, join_chunks

ALPHABET = "ab .!?\n。x"


def words(text: str) -> list[Span]:
    """A tokenizer: words, and marks alone."""
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


def chunks(text: str, max_tokens: int, overlap_tokens: int = 0) -> list[str]:
    return [text[start:end] for start, end in chunk_spans(text, words(text), max_tokens, overlap_tokens)]


def test_sentences_stay_whole() -> None:
    text = "One two three. Four five! Six, seven and eight? Nine."
    assert chunks(text, 7) == ["One two three. Four five! ", "Six, seven and eight? ", "Nine."]
    assert chunks(text, 100) == [text]


def test_the_last_sentences_come_again() -> None:
    text = "One two. Three four. Five six. Seven eight."
    assert chunks(text, 6, overlap_tokens=3) == ["One two. Three four. ", "Three four. Five six. ", "Five six. Seven eight."]


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("今天天气很好。我们去公园。", ["今天天气很好。", "我们去公园。"]),
        ("यह एक वाक्य है। यह दूसरा है।", ["यह एक वाक्य है। ", "यह दूसरा है।"]),
        ("كيف حالك؟ أنا بخير", ["كيف حالك؟ ", "أنا بخير"]),
        ('He said "no." Then he left.', ['He said "no." ', "Then he left."]),
        ("version 3.14 is one. Next", ["version 3.14 is one. ", "Next"]),
        ("a = 1\nb = 2\n\nc", ["a = 1\n", "b = 2\n\n", "c"]),
    ],
)
def test_where_sentences_end(text: str, ends: list[str]) -> None:
    most = max(len(words(end)) for end in ends)
    assert chunks(text, most) == ends


def test_a_long_sentence_is_cut_between_words_and_a_long_word_between_tokens() -> None:
    assert chunks("one two three four five", 2) == ["one two ", "three four ", "five"]
    text = "x" * 10
    letters = [(i, i + 1) for i in range(10)]
    assert chunk_spans(text, letters, 4, 0) == [(0, 4), (4, 8), (8, 10)]


def test_tokens_of_one_character_stay_together() -> None:
    three_a_character = [(i, i + 1) for i in range(3) for _ in range(3)]
    assert chunk_spans("🐼🐼🐼", three_a_character, 2, 1) == [(0, 1), (1, 2), (2, 3)]
    assert chunk_spans("🐼🐼🐼", three_a_character, 6, 3) == [(0, 2), (2, 3)]


def test_nothing_is_one_empty_chunk() -> None:
    assert chunk_spans("", [], 4, 0) == [(0, 0)]
    assert chunks(" \n ", 4) == [" \n "]


@given(st.text(ALPHABET, max_size=200), st.integers(1, 12), st.integers(0, 11))
def test_together_they_are_the_text_and_none_is_too_large(text: str, max_tokens: int, overlap_tokens: int) -> None:
    spans = chunk_spans(text, words(text), max_tokens, min(overlap_tokens, max_tokens - 1))
    parts = [text[start:end] for start, end in spans]
    assert join_chunks(parts, [start for start, _ in spans]) == text
    assert all(len(words(part)) <= max_tokens for part in parts)
    assert all(before[0] < after[0] <= before[1] < after[1] for before, after in pairwise(spans))
    shared = [text[after[0] : before[1]] for before, after in pairwise(spans)]
    assert all(len(words(again)) <= overlap_tokens for again in shared)
