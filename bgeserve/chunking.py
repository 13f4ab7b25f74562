"""Where a long text is cut: at sentence ends, into pieces of a bounded number of tokens that overlap a little.

Knows characters, and where a tokenizer saw tokens. Does not know tokenizers, models or documents.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

Span = tuple[int, int]
"""Characters [start, end)."""

_SENTENCE_END = re.compile(
    r"""
    [.!?…]+ ["'”’»)\]]* (?=\s)          # Latin, Cyrillic, Greek ...: only before a space, since 3.14 is one number
    | [。！？｡．]+ [”’」』）]*            # Chinese and Japanese put no space after it
    | [।॥؟۔።፧]+                         # Devanagari, Arabic, Urdu, Ethiopic
    | (?=\n)                             # a line of a list, of code, of a poem
    """,
    re.VERBOSE,
)


def chunk_spans(text: str, tokens: Sequence[Span], max_tokens: int, overlap_tokens: int) -> list[Span]:
    """Spans that cover the whole text, in order. Each has at most `max_tokens` of `tokens` and ends with a sentence, if there is one that
    ends in it; it begins with those last sentences of the span before that have at most `overlap_tokens` together.

    tokens: the spans that a tokenizer gives for this text, in order. Tokens that begin with the same character are never parted, not even
    where they are more than `max_tokens`.
    """
    starts = [start for start, _ in tokens]
    pieces = [piece for sentence in _sentences(text) for piece in _pieces(text, sentence, tokens, starts, max_tokens)]
    counts = [_count(starts, piece) for piece in pieces]
    spans: list[Span] = []
    first = 0
    while first < len(pieces):
        after = first
        size = 0
        while after < len(pieces) and (after == first or size + counts[after] <= max_tokens):
            size += counts[after]
            after += 1
        spans.append((pieces[first][0], pieces[after - 1][1]))
        first = after if after == len(pieces) else _overlapping(counts, first, after, max_tokens, overlap_tokens)
    return spans or [(0, 0)]


def segments(text: str, max_characters: int) -> Iterator[Span]:
    """Parts of a very long text that can be tokenised one by one: each but the last ends where a word does, if there is one."""
    start = 0
    while len(text) - start > max_characters:
        space = max(text.rfind(" ", start + 1, start + max_characters), text.rfind("\n", start + 1, start + max_characters))
        end = space if space >= 0 else start + max_characters
        yield start, end
        start = end
    yield start, len(text)


def join_chunks(texts: Sequence[str], starts: Sequence[int]) -> str:
    """The whole text that was cut into these, each of which begins at its start."""
    whole = ""
    for text, start in zip(texts, starts, strict=True):
        whole += text[len(whole) - start :]
    return whole


def _overlapping(counts: Sequence[int], first: int, after: int, max_tokens: int, overlap_tokens: int) -> int:
    """The first piece of the next span: so far back that the overlap is kept, and that the piece after it still fits."""
    room = min(overlap_tokens, max_tokens - counts[after])
    begin = after
    while begin - 1 > first and counts[begin - 1] <= room:
        begin -= 1
        room -= counts[begin]
    return begin


def _sentences(text: str) -> Iterator[Span]:
    """Each with the white space that follows it."""
    start = 0
    for match in _SENTENCE_END.finditer(text):
        end = match.end()
        while end < len(text) and text[end].isspace():
            end += 1
        if end > start and not text[start:end].isspace():
            yield start, end
            start = end
    if start < len(text):
        yield start, len(text)


def _pieces(text: str, sentence: Span, tokens: Sequence[Span], starts: Sequence[int], max_tokens: int) -> Iterator[Span]:
    """A sentence of more tokens is cut between words, or where it has none, between tokens."""
    start, end = sentence
    while _count(starts, (start, end)) > max_tokens:
        cut = tokens[bisect_left(starts, start) + max_tokens][0]
        if cut == start and (next_start := bisect_right(starts, start)) < len(starts):
            cut = starts[next_start]
        if not start < cut < end:
            break
        space = max(text.rfind(" ", start + 1, cut), text.rfind("\n", start + 1, cut))
        cut = space + 1 if space >= 0 and _count(starts, (start, space + 1)) > 0 else cut
        yield start, cut
        start = cut
    yield start, end


def _count(starts: Sequence[int], span: Span) -> int:
    return bisect_left(starts, span[1]) - bisect_left(starts, span[0])
