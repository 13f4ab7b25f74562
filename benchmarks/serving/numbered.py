"""Texts of which no two in a run are the same, with their tokens counted and cut at one limit for every system.

Each gets a number in front, so that nothing can be answered from memory. Knows the model's tokenizer, not what is asked of the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tokenizers import Tokenizer

QUERY_TOKENS = 16
"""At most, of a short query."""
NUMBER_TOKENS = 4
"""About what a number in front costs."""
SAMPLE = 500


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    tokens: int
    """As the model computes them: special ones included."""


class NumberedTexts:
    """The corpus again and again, in its order. `numbers` is one for the whole run, whatever the texts are taken for."""

    def __init__(self, corpus: Sequence[str], tokenizer: Tokenizer, max_tokens: int, numbers: Iterator[int]) -> None:
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._numbers = numbers
        self.mean_tokens = fmean(text.tokens for text in self._cut(corpus[:SAMPLE])) + NUMBER_TOKENS

    def take(self, count: int, at: int = 0) -> list[Text]:
        """From position `at` of the corpus on: who takes from the same position gets the same texts, with other numbers."""
        return self._cut([f"{next(self._numbers)}. {self._corpus[(at + i) % len(self._corpus)]}" for i in range(count)])

    def queries(self) -> NumberedTexts:
        """The beginnings of these texts, as somebody would type them."""
        return NumberedTexts([text.splitlines()[0] for text in self._corpus], self._tokenizer, QUERY_TOKENS, self._numbers)

    def _cut(self, texts: Sequence[str]) -> list[Text]:
        found: list[Text] = []
        for text, tokens in zip(texts, self._tokenizer.encode_batch(list(texts)), strict=True):
            if len(tokens.ids) > self._max_tokens:
                # The last one is the special token that ends a text.
                text = text[: tokens.offsets[self._max_tokens - 2][1]]
                tokens = self._tokenizer.encode(text)
                assert len(tokens.ids) <= self._max_tokens
            found.append(Text(text, len(tokens.ids)))
        return found


def load_tokenizer(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # The file may say how its author batched: here each text counts as it is.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def max_tokens_of(folder: Path) -> int:
    """The model's own limit, which every system that is compared keeps to."""
    return int(json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"])
