"""Texts that have broken tokenizers, truncation or padding somewhere."""

from __future__ import annotations

import random

from tests.checkpoints import TEXTS

SPECIAL_TOKENS = "<s> special </s> tokens <pad> in <unk> the text <mask> [CLS] [SEP] [PAD]"

AWKWARD = (
    "word",
    "",
    "   \t\n ",
    "a" * 150,
    "哈" * 40,
    "\u202eright-to-left mark\u202c and \u200fmore",
    "zero\u200bwidth\u200djoin\ufeff",
    "NUL \x00 and bell \x07",
    "combining e\u0301 \u0301 alone, Hangul 한국어 \u1112\u1161\u11ab",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 🏳️‍🌈 🇳🇱",
    SPECIAL_TOKENS,
    "line\r\nbreaks\u2028and\u2029paragraphs\x85here",
    "{braces} {} {0} %s $x",
    "long " * 3000,
)


def ragged(count: int, most_words: int, seed: int = 0) -> list[str]:
    """Texts of 1 to `most_words` words out of TEXTS, in random order."""
    random_ = random.Random(seed)
    words = [word for text in TEXTS for word in text.split()]
    return [" ".join(random_.choices(words, k=random_.randint(1, most_words))) for _ in range(count)]
