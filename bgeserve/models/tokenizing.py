"""Texts to ids, once per replica: one fast tokenizer with its own truncation and padding switched off; cutting is done on ids.

Knows the checkpoint's special tokens and a limit. Does not know models or batches. Every method may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from bgeserve.errors import CheckpointError, InvalidRequest, TextTooLong

Int32Array = NDArray[np.int32]

CHARS_PER_TOKEN = 8
"""More than any natural text has: the prefix of an over-long text that is tokenised first."""
BOUNDARY_SLACK_TOKENS = 4
"""A prefix that ends before a space may still differ in its last tokens: some vocabularies join punctuation and a line break after it."""
UNBROKEN_SLACK_TOKENS = 128
"""A prefix that ends inside a word may differ from the whole text in its last tokens. WordPiece: within that one word, at most 100."""


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """What the transformer sees of one text or pair, special tokens included."""

    ids: Int32Array
    truncated: bool = False
    type_ids: Int32Array | None = None
    """None where all are 0."""

    @property
    def cost(self) -> int:
        """Tokens that a forward computes for it."""
        return len(self.ids)


class Tokenizer:
    """The checkpoint's tokenizer with a limit of `max_tokens`, special tokens included."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        # Where there is a file, it holds as it is: AutoTokenizer of transformers 5 builds some families' tokenizers anew, which then split
        # differently after a special token in the text.
        kind: Any = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
        try:
            tokenizer: Any = kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder}: its tokenizer cannot be loaded: {error}") from error
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if self._backend is None:
            raise CheckpointError(f"{folder}: {type(tokenizer).__name__} is not a fast tokenizer (no tokenizer.json)")
        self._backend.no_truncation()
        self._backend.no_padding()
        self.max_tokens = max_tokens
        self.vocabulary_size = int(self._backend.get_vocab_size(with_added_tokens=True))
        special = (tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
        self.special_ids: tuple[int, ...] = tuple(i for i in special if i is not None)
        """Ids of cls, eos, pad and unk: they carry no lexical weight."""
        self.bos_id: int | None = tokenizer.bos_token_id
        self.pad_id: int | None = tokenizer.pad_token_id
        self._single = _Template.of(self._backend.encode("a"))
        self._pair = _Template.of(self._backend.encode("a", "a"))

    def encode(self, texts: Sequence[str], *, truncate: bool = True, field: str = "texts") -> list[TokenSequence]:
        """Ids of each text; over the limit, the first ones. Raises TextTooLong (truncate=False), InvalidRequest (a lone surrogate)."""
        before, after = self._single.parts
        room = self.max_tokens - self.special_tokens
        sequences: list[TokenSequence] = []
        for i, ids in enumerate(self.body_ids(texts, room, field)):
            if len(ids) > room and not truncate:
                raise TextTooLong(field, None if field == "query" else i, len(ids) + self.special_tokens, self.max_tokens)
            sequences.append(TokenSequence(np.array([*before, *ids[:room], *after], np.int32), truncated=len(ids) > room))
        return sequences

    @property
    def special_tokens(self) -> int:
        """How many tokens the tokenizer puts around one text."""
        return sum(map(len, self._single.parts))

    def encode_whole(self, texts: Sequence[str]) -> list[Int32Array]:
        """Ids of each text with its special tokens, however many they are."""
        return [np.array(encoding.ids, np.int32) for encoding in self._backend.encode_batch_fast(list(texts))]

    def cut(self, text: str, room: int, field: str) -> tuple[str, bool]:
        """The characters of a text's first `room` tokens, and whether that leaves any out; for what is tokenised again as part of a longer
        text. Raises InvalidRequest (a lone surrogate)."""
        (encoding,) = self._bodies([text], room, field, with_offsets=True)
        if len(encoding.ids) <= room:
            return text, False
        return text[: encoding.offsets[room - 1][1]], True

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The characters of each token, without special tokens. Raises InvalidRequest (a lone surrogate)."""
        # With a limit of so many tokens, the whole text is what is tokenised of it.
        (encoding,) = self._bodies([text], len(text), "texts", with_offsets=True)
        return encoding.offsets

    def encode_pairs(self, query: str, passages: Sequence[str], *, truncate: bool = True) -> list[TokenSequence]:
        """Ids of the query with each passage: the query cut to 3/4 of the limit, then the passage to what is left.

        As FlagEmbedding defines it on ids (inference/reranker/encoder_only/base.py). Raises as `encode`; a
        passage's tokens are counted with its query's.
        """
        before, between, after = self._pair.parts
        query_room = self.max_tokens * 3 // 4
        (query_ids,) = self.body_ids([query], query_room, "query")
        if len(query_ids) > query_room and not truncate:
            raise TextTooLong("query", None, len(query_ids), query_room)
        head = [*before, *query_ids[:query_room], *between]
        room = max(0, self.max_tokens - len(head) - len(after))
        sequences: list[TokenSequence] = []
        for i, ids in enumerate(self.body_ids(passages, room, "passages")):
            if len(ids) > room and not truncate:
                raise TextTooLong("passages", i, len(head) + len(ids) + len(after), self.max_tokens)
            pair = np.array([*head, *ids[:room], *after], np.int32)
            cut = len(query_ids) > query_room or len(ids) > room
            sequences.append(TokenSequence(pair, cut, self._pair_types(len(head), len(pair))))
        return sequences

    def _pair_types(self, head: int, total: int) -> Int32Array | None:
        if not self._pair.second_type:
            return None
        types = np.zeros(total, np.int32)
        types[head:] = self._pair.second_type
        return types

    def body_ids(self, texts: Sequence[str], limit: int, field: str) -> list[list[int]]:
        """Ids of each text without special tokens: all of them, or, of a longer text, more than `limit` whose first `limit` are right."""
        return [encoding.ids for encoding in self._bodies(texts, limit, field)]

    def _bodies(self, texts: Sequence[str], limit: int, field: str, with_offsets: bool = False) -> list[Any]:
        """Encodings, as `body_ids`. A text far over the limit is tokenised by a growing prefix, so that a megabyte costs what its first
        tokens cost."""
        prefixes = [_prefix(text, (limit + 1) * CHARS_PER_TOKEN) for text in texts]
        try:
            encodings = self._encode_batch([p.text for p in prefixes], with_offsets)
            for i, prefix in enumerate(prefixes):
                while len(encodings[i].ids) < prefix.needed_tokens(limit):
                    prefix = _prefix(texts[i], 4 * prefix.asked)
                    (encodings[i],) = self._encode_batch([prefix.text], with_offsets)
        except (TypeError, UnicodeEncodeError):
            _refuse_lone_surrogates(texts, field)
            raise
        return encodings

    def _encode_batch(self, texts: list[str], with_offsets: bool) -> list[Any]:
        encode = self._backend.encode_batch if with_offsets else self._backend.encode_batch_fast
        return encode(texts, add_special_tokens=False)


@dataclass(frozen=True, slots=True)
class _Template:
    """The special tokens around and between texts, as the tokenizer itself places them."""

    parts: tuple[tuple[int, ...], ...]
    second_type: int
    """Token type of the second text and what follows it."""

    @staticmethod
    def of(encoding: Any) -> _Template:
        sequence_ids = cast(list[int | None], encoding.sequence_ids)
        parts: list[list[int]] = [[]]
        previous: int | None = None
        for token, sequence in zip(cast(list[int], encoding.ids), sequence_ids, strict=True):
            if sequence is None:
                parts[-1].append(token)
            elif sequence != previous:
                parts.append([])
            previous = sequence if sequence is not None else previous
        return _Template(tuple(tuple(part) for part in parts), int(encoding.type_ids[-1]))


@dataclass(frozen=True, slots=True)
class _Prefix:
    text: str
    asked: int
    whole: bool
    at_boundary: bool
    """It ends where a space begins."""

    def needed_tokens(self, limit: int) -> int:
        """With how many tokens the first `limit` are those of the whole text."""
        if self.whole:
            return 0
        return limit + 1 + BOUNDARY_SLACK_TOKENS if self.at_boundary else 2 * limit + UNBROKEN_SLACK_TOKENS


def _prefix(text: str, asked: int) -> _Prefix:
    if len(text) <= asked:
        return _Prefix(text, asked, whole=True, at_boundary=True)
    low = asked // 2
    space = max(text.rfind(" ", low, asked), text.rfind("\n", low, asked))
    if space < 0:
        return _Prefix(text[:asked], asked, whole=False, at_boundary=False)
    return _Prefix(text[:space].rstrip(), asked, whole=False, at_boundary=True)


def _refuse_lone_surrogates(texts: Sequence[str], field: str) -> None:
    for i, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            where = field if field == "query" else f"{field}[{i}]"
            message = f"{where} has a lone surrogate ({text[error.start]!a}) at character {error.start}: no UTF-8 text can hold it"
            raise InvalidRequest(message, field=field) from error
