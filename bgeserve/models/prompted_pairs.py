"""Query, passage and prompt as the one text that an LLM reranker reads: `A: query \n B: passage \n prompt`, put together from ids.

Knows a tokenizer and FlagEmbedding's limits (inference/reranker/decoder_only/base.py). Does not know models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bgeserve.errors import InvalidRequest, TextTooLong
from bgeserve.models.tokenizing import Tokenizer, TokenSequence

SEPARATOR = "\n"
QUERY_INSTRUCTION = "A: "
PASSAGE_INSTRUCTION = "B: "


@dataclass(frozen=True, slots=True)
class PromptedPair:
    """One pair in four parts: begin-of-text, query and separator; passage; separator and prompt."""

    sequence: TokenSequence
    query_tokens: int
    """Before the passage, begin-of-text and separator included."""
    prompt_tokens: int
    """After the passage, separator included."""

    @property
    def passage_tokens(self) -> int:
        return self.cost - self.query_tokens - self.prompt_tokens

    @property
    def cost(self) -> int:
        return self.sequence.cost

    @property
    def truncated(self) -> bool:
        return self.sequence.truncated


class PairPrompter:
    """Pairs of at most `max_tokens` of query and passage (the query at most 3/4 of it); separators and prompt come on top."""

    def __init__(self, tokenizer: Tokenizer, *, prompt: str, instruction: str, most_tokens: int) -> None:
        """`most_tokens`: positions that the model has. Raises InvalidRequest, as `pairs` does for a prompt."""
        self.max_tokens = tokenizer.max_tokens
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._instruction = instruction
        self._most_tokens = most_tokens
        # A model that pads with its begin-of-text token was trained without one.
        self._bos = [] if tokenizer.bos_id in (None, tokenizer.pad_id) else [tokenizer.bos_id]
        (self._separator,) = tokenizer.body_ids([SEPARATOR], self.max_tokens, "separator")
        self._prompt_ids(prompt)  # too long a prompt is refused before any weights are loaded

    def pairs(
        self, query: str, passages: Sequence[str], *, prompt: str | None = None, instruction: str | None = None, truncate: bool = True
    ) -> list[PromptedPair]:
        """One item per passage. Raises TextTooLong (truncate=False), InvalidRequest (a lone surrogate; a prompt with too many tokens)."""
        after = [*self._separator, *self._prompt_ids(self._prompt if prompt is None else prompt)]
        query_room = self.max_tokens * 3 // 4
        (query_ids,) = self._tokenizer.body_ids([(self._instruction if instruction is None else instruction) + query], query_room, "query")
        if len(query_ids) > query_room and not truncate:
            raise TextTooLong("query", None, len(query_ids), query_room)
        head = [*self._bos, *query_ids[:query_room]]
        # As upstream counts: the prompt's tokens are in the limit of the pair, and then come once more.
        room = min(self.max_tokens, self.max_tokens + len(after) - len(self._separator) - len(head))
        bodies = self._tokenizer.body_ids([PASSAGE_INSTRUCTION + passage for passage in passages], room, "passages")
        pairs: list[PromptedPair] = []
        for i, ids in enumerate(bodies):
            if len(ids) > room and not truncate:
                raise TextTooLong("passages", i, len(head) + len(ids), len(head) + room)
            whole = np.array([*head, *self._separator, *ids[:room], *after], np.int32)
            cut = len(query_ids) > query_room or len(ids) > room
            pairs.append(PromptedPair(TokenSequence(whole, cut), len(head) + len(self._separator), len(after)))
        return pairs

    def first_id_of(self, answer: str) -> int:
        """Of a word as the model would begin to write it."""
        (ids,) = self._tokenizer.body_ids([answer], self.max_tokens, "answer")
        return ids[0]

    def _prompt_ids(self, prompt: str) -> list[int]:
        (ids,) = self._tokenizer.body_ids([prompt], self._most_tokens, "prompt")
        if len(ids) > (most := (self._most_tokens - self.max_tokens) // 2 - len(self._separator)):
            raise InvalidRequest(f"prompt has {len(ids)} tokens; beside pairs of {self.max_tokens} it may have {most}", field="prompt")
        return ids
