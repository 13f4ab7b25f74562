"""LLM rerankers: how likely the language model finds "Yes" after query, passage and prompt (bge-reranker-v2-gemma).

Only one row of the language model's head is kept: neither the other logits nor those of other positions are computed. The maths is
FlagEmbedding's (inference/reranker/decoder_only/base.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from bgeserve.catalog import PROMPTS
from bgeserve.errors import InvalidRequest, SettingsError
from bgeserve.models import heads
from bgeserve.models.checkpoint import Checkpoint
from bgeserve.models.encoder import PackedEncoder
from bgeserve.models.loading import limit_of, load_causal_lm, load_tokenizer
from bgeserve.models.prompted_pairs import QUERY_INSTRUCTION, PairPrompter, PromptedPair
from bgeserve.models.scoring import PairScore, RerankerInfo, sigmoid
from bgeserve.settings import RerankerSettings
from bgeserve.types import RerankerOptions

ANSWER = "Yes"
PROMPT_ROOM_TOKENS = 128
"""Positions that a limit taken from the model's files leaves for separators and prompt, which are in a pair twice at most."""


class LLMReranker:
    """A `scoring.Scorer`; its score is a logit."""

    def __init__(self, info: RerankerInfo, prompter: PairPrompter, encoder: PackedEncoder, answer: Tensor, softcap: float | None) -> None:
        """answer: float32 [hidden size], the head's row of `ANSWER`."""
        self.info = info
        self._prompter = prompter
        self._encoder = encoder
        self._answer = answer
        self._softcap = softcap

    def tokenize(self, query: str, passages: Sequence[str], options: RerankerOptions, truncate: bool = True) -> list[PromptedPair]:
        return self._prompter.pairs(query, passages, prompt=options.prompt, instruction=options.instruction, truncate=truncate)

    @torch.inference_mode()
    def forward(self, items: Sequence[PromptedPair]) -> list[PairScore]:
        hidden, batch = self._encoder([item.sequence for item in items])
        rows = heads.TokenRows(hidden, batch.ids, batch.lengths)
        logits = soft_capped(rows.at(rows.ends - 1) @ self._answer, self._softcap).cpu()
        return [PairScore(score) for score in logits[torch.from_numpy(batch.order.argsort())].tolist()]

    def normalize(self, score: float) -> float:
        return sigmoid(score)


def soft_capped(logits: Tensor, softcap: float | None) -> Tensor:
    """Bent into (-softcap, softcap), as Gemma2 does with its last logits."""
    return logits if softcap is None else torch.tanh(logits / softcap) * softcap


def load_prompter(settings: RerankerSettings, checkpoint: Checkpoint, default_prompt: str) -> PairPrompter:
    tokenizer = load_tokenizer(checkpoint, limit_of(settings, checkpoint, reserved=PROMPT_ROOM_TOKENS))
    try:
        return PairPrompter(
            tokenizer,
            prompt=default_prompt if settings.prompt is None else settings.prompt,
            instruction=QUERY_INSTRUCTION if settings.instruction is None else settings.instruction,
            most_tokens=checkpoint.most_tokens,
        )
    except InvalidRequest as error:
        raise SettingsError(f"{settings.model}: {error.message}", field=error.field) from None


def load_llm_reranker(settings: RerankerSettings, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> LLMReranker:
    prompter = load_prompter(settings, checkpoint, PROMPTS["llm"])
    model = cast(Any, load_causal_lm(checkpoint, device, dtype))
    info = RerankerInfo(settings.model, checkpoint.family, "llm", prompter.max_tokens, options=("instruction", "prompt"))
    answer = model.lm_head.weight[prompter.first_id_of(ANSWER)].float().clone()
    softcap = getattr(model.config, "final_logit_softcapping", None)
    return LLMReranker(info, prompter, PackedEncoder(model.base_model, checkpoint.positions, device), answer, softcap)
