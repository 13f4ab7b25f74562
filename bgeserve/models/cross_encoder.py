"""Encoder rerankers: query and passage read together, scored by the checkpoint's own classifier (bge-reranker-base, -large, -v2-m3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from bgeserve.errors import CheckpointError
from bgeserve.models import heads
from bgeserve.models.checkpoint import Checkpoint
from bgeserve.models.encoder import PackedEncoder
from bgeserve.models.loading import limit_of, load_classifier, load_tokenizer
from bgeserve.models.scoring import PairScore, RerankerInfo, sigmoid
from bgeserve.models.tokenizing import Tokenizer, TokenSequence
from bgeserve.settings import RerankerSettings
from bgeserve.types import RerankerOptions


class CrossEncoder:
    """A `scoring.Scorer`; its score is a logit."""

    def __init__(self, info: RerankerInfo, tokenizer: Tokenizer, encoder: PackedEncoder, classifier: FirstTokenClassifier) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self._encoder = encoder
        self._classifier = classifier

    def tokenize(self, query: str, passages: Sequence[str], options: RerankerOptions, truncate: bool = True) -> list[TokenSequence]:
        return self.tokenizer.encode_pairs(query, passages, truncate=truncate)

    @torch.inference_mode()
    def forward(self, items: Sequence[TokenSequence]) -> list[PairScore]:
        hidden, batch = self._encoder(items)
        rows = heads.TokenRows(hidden, batch.ids, batch.lengths)
        logits = self._classifier(rows.at(rows.starts))
        return [PairScore(score) for score in logits[torch.from_numpy(batch.order.argsort())].tolist()]

    def normalize(self, score: float) -> float:
        return sigmoid(score)


class FirstTokenClassifier:
    """The checkpoint's own pooler and classifier, in float32, on the hidden states of each sequence's first token."""

    def __init__(self, model: nn.Module) -> None:
        parts = cast(Any, model)
        self._classifier: nn.Module = parts.classifier.float()
        self._pooler: nn.Module | None = None if parts.base_model.pooler is None else parts.base_model.pooler.float()
        # Left inside, it would pool the first token of the whole packed row.
        parts.base_model.pooler = None

    def __call__(self, first: Tensor) -> Tensor:
        """float32 [n, hidden size] -> float32 [n], on the CPU."""
        features = first.unsqueeze(1)
        return self._classifier(features if self._pooler is None else self._pooler(features)).flatten().cpu()


def load_cross_encoder(settings: RerankerSettings, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> CrossEncoder:
    tokenizer = load_tokenizer(checkpoint, limit_of(settings, checkpoint))
    model = cast(Any, load_classifier(checkpoint, device, dtype))
    if model.config.num_labels != 1:
        raise CheckpointError(f"{checkpoint.folder / 'config.json'}: a reranker has 1 label; this has {model.config.num_labels}")
    classifier = FirstTokenClassifier(model)
    encoder = PackedEncoder(model.base_model, checkpoint.positions, device)
    info = RerankerInfo(settings.model, checkpoint.family, "cross_encoder", tokenizer.max_tokens)
    return CrossEncoder(info, tokenizer, encoder, classifier)
