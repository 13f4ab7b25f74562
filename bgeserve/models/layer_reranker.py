"""Rerankers that score at any of their upper layers: bge-reranker-v2-minicpm-layerwise and bge-reranker-v2.5-gemma2-lightweight.

Score at layer i: the final norm of the hidden state before layer i, through layer i's own head. FlagEmbedding's lightweight class takes the
head by the position in the list of asked layers, so its single cutoffs use the first head; with all layers asked, where both agree, its
numbers are these. Sources: FlagEmbedding's inference/reranker/decoder_only/{layerwise,lightweight}.py and models/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from bgeserve.catalog import PROMPTS, RerankerKind
from bgeserve.models.checkpoint import Checkpoint
from bgeserve.models.encoder import PackedEncoder
from bgeserve.models.layer_loop import Depths, LayerLoop
from bgeserve.models.llm_reranker import load_prompter, soft_capped
from bgeserve.models.loading import load_layer_scorer
from bgeserve.models.prompted_pairs import PairPrompter, PromptedPair
from bgeserve.models.scoring import PairScore, RerankerInfo, sigmoid
from bgeserve.settings import RerankerSettings
from bgeserve.types import RerankerOptions

DEFAULT_COMPRESS_LAYERS = (8,)

_OPTIONS: dict[RerankerKind, tuple[str, ...]] = {
    "layerwise": ("instruction", "prompt", "cutoff_layers"),
    "lightweight": ("instruction", "prompt", "cutoff_layers", "compress_layers", "compress_ratio"),
}


@dataclass(frozen=True, slots=True)
class LayeredPair:
    pair: PromptedPair
    depths: Depths

    @property
    def cost(self) -> int:
        return self.pair.cost

    @property
    def truncated(self) -> bool:
        return self.pair.truncated


class LayerReranker:
    """A `scoring.Scorer`; its scores are logits, one for each cutoff layer, of which the last one counts."""

    def __init__(self, info: RerankerInfo, prompter: PairPrompter, encoder: PackedEncoder, heads: Tensor, softcap: float | None) -> None:
        """heads: float32 [layers that can be cut at, or 1, hidden size]."""
        self.info = info
        self._prompter = prompter
        self._encoder = encoder
        self._heads = heads
        self._softcap = softcap

    def tokenize(self, query: str, passages: Sequence[str], options: RerankerOptions, truncate: bool = True) -> list[LayeredPair]:
        cutoffs = tuple(sorted(set(options.cutoff_layers or (self.info.cutoffs[-1],))))
        ratio = options.compress_ratio or 1
        layers = DEFAULT_COMPRESS_LAYERS if options.compress_layers is None else options.compress_layers
        compress_at = frozenset(layers) if ratio > 1 else frozenset[int]()
        pairs = self._prompter.pairs(query, passages, prompt=options.prompt, instruction=options.instruction, truncate=truncate)
        return [
            LayeredPair(pair, Depths(pair.query_tokens, pair.passage_tokens, pair.prompt_tokens, cutoffs, compress_at, ratio))
            for pair in pairs
        ]

    @torch.inference_mode()
    def forward(self, items: Sequence[LayeredPair]) -> list[PairScore]:
        batch = self._encoder.pack([item.pair.sequence for item in items])
        depths = [items[i].depths for i in batch.order]
        states = self._encoder.run(batch, depths=depths).float()
        layers = np.array([layer for asked in depths for layer in asked.cutoffs])
        logits = soft_capped((states * self._heads_of(layers)).sum(-1), self._softcap).tolist()
        scores: list[PairScore] = [PairScore(0.0)] * len(items)
        ends = np.cumsum([len(asked.cutoffs) for asked in depths])
        for i, asked, end in zip(batch.order, depths, ends, strict=True):
            scores[i] = _pair_score(asked.cutoffs, logits[end - len(asked.cutoffs) : end])
        return scores

    def normalize(self, score: float) -> float:
        return sigmoid(score)

    def _heads_of(self, layers: np.ndarray) -> Tensor:
        if len(self._heads) == 1:
            return self._heads
        cutoffs = self.info.cutoffs
        return self._heads[torch.from_numpy((layers - cutoffs.start) // cutoffs.step).to(self._heads.device)]


def _pair_score(cutoffs: Sequence[int], logits: Sequence[float]) -> PairScore:
    parts = {f"layer_{layer}": logit for layer, logit in zip(cutoffs, logits, strict=True)} if len(cutoffs) > 1 else {}
    return PairScore(logits[-1], parts)


def load_layer_reranker(settings: RerankerSettings, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> LayerReranker:
    kind = checkpoint.reranker_kind
    prompter = load_prompter(settings, checkpoint, PROMPTS[kind])
    model = cast(Any, load_layer_scorer(checkpoint, device, dtype))
    config = model.config
    cutoffs = range(config.start_layer, config.num_hidden_layers + 1, config.layer_sep)
    info = RerankerInfo(settings.model, checkpoint.family, kind, prompter.max_tokens, _OPTIONS[kind], cutoffs)
    linears = [module for module in model.lm_head.modules() if isinstance(module, nn.Linear)]
    heads = torch.cat([linear.weight for linear in linears]).float()
    model.model.layers = nn.ModuleList([LayerLoop(model.model.layers)])
    encoder = PackedEncoder(model.model, checkpoint.positions, device)
    return LayerReranker(info, prompter, encoder, heads, getattr(config, "final_logit_softcapping", None))
