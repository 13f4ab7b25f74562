"""Rerankers: a score for each passage of a query, by a cross-encoder or by late interaction.

Knows pairs, tokens and scores. Does not know queues, threads or HTTP: `tokenize` and `forward` may be called from any thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from bgeserve.catalog import find_reranker
from bgeserve.errors import CheckpointError
from bgeserve.models import heads
from bgeserve.models.checkpoint import Checkpoint, locate
from bgeserve.models.embedder import PackedEmbedder, load_embedder_of
from bgeserve.models.encoder import PackedEncoder
from bgeserve.models.loading import limit_of, load_classifier, load_tokenizer
from bgeserve.models.runtime import choose_device, choose_dtype
from bgeserve.models.tokenizing import Tokenizer, TokenSequence
from bgeserve.settings import RerankerSettings


@dataclass(frozen=True, slots=True)
class RerankerInfo:
    model: str
    max_tokens: int


class CrossEncoder:
    """Reads query and passage together; its score is a logit."""

    def __init__(self, info: RerankerInfo, tokenizer: Tokenizer, encoder: PackedEncoder, classifier: FirstTokenClassifier) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self._encoder = encoder
        self._classifier = classifier

    def tokenize(self, query: str, passages: Sequence[str], truncate: bool = True) -> list[TokenSequence]:
        """One item per passage. Raises InvalidRequest: over the limit with truncate=False, or a lone surrogate."""
        return self.tokenizer.encode_pairs(query, passages, truncate=truncate)

    @torch.inference_mode()
    def forward(self, items: Sequence[TokenSequence]) -> list[float]:
        """Logits, in the items' order; items of different queries may share a batch."""
        hidden, batch = self._encoder(items)
        rows = heads.TokenRows(hidden, batch.ids, batch.lengths)
        logits = self._classifier(rows.at(rows.starts))
        return logits[torch.from_numpy(batch.order.argsort())].tolist()

    def normalize(self, score: float) -> float:
        """Sigmoid, as FlagEmbedding normalises."""
        return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))


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


@dataclass(frozen=True, slots=True)
class LateInteractionItem:
    """One passage, and the query that it shares with the other passages of its call."""

    query: TokenSequence
    passage: TokenSequence

    @property
    def truncated(self) -> bool:
        return self.query.truncated or self.passage.truncated

    @property
    def cost(self) -> int:
        """Most tokens that it adds to a batch: a query is computed once for all its passages in the batch, so usually fewer."""
        return self.query.cost + self.passage.cost


class LateInteraction:
    """MaxSim over an embedder's token vectors; no training for reranking is needed, so any encoder can do it."""

    def __init__(self, embedder: PackedEmbedder) -> None:
        self.info = RerankerInfo(embedder.info.model, embedder.info.max_tokens)
        self.tokenizer = embedder.tokenizer
        self._embedder = embedder

    def tokenize(self, query: str, passages: Sequence[str], truncate: bool = True) -> list[LateInteractionItem]:
        """One item per passage. The query stands without its instruction, whose tokens would vote in MaxSim. Raises as CrossEncoder's."""
        (query_tokens,) = self.tokenizer.encode([query], truncate=truncate, field="query")
        return [LateInteractionItem(query_tokens, p) for p in self.tokenizer.encode(passages, truncate=truncate, field="passages")]

    @torch.inference_mode()
    def forward(self, items: Sequence[LateInteractionItem]) -> list[float]:
        """Mean best cosines in [-1, 1], in the items' order; each query in the batch is encoded once, in the same pass as the passages."""
        queries = {id(item.query): item.query for item in items}
        vectors = self._embedder.token_vectors([*queries.values(), *(item.passage for item in items)])
        query_vectors = dict(zip(queries, vectors, strict=False))
        passage_vectors = vectors[len(queries) :]
        scores = [heads.max_sim(query_vectors[id(item.query)], p) for item, p in zip(items, passage_vectors, strict=True)]
        return torch.stack(scores).tolist()

    def normalize(self, score: float) -> float:
        """From the cosine's [-1, 1] to [0, 1], linearly."""
        return min(1.0, max(0.0, (1 + score) / 2))


def load_reranker(settings: RerankerSettings) -> CrossEncoder | LateInteraction:
    """Raises CheckpointError (the folder), SettingsError (the machine or the limits cannot give what the settings ask for)."""
    if settings.scoring == "late_interaction":
        return LateInteraction(load_embedder_of(settings, query_instruction=""))
    row = find_reranker(settings.model)
    device = choose_device(settings)
    checkpoint = Checkpoint.read(locate(settings.model, settings.revision), row.max_tokens if row else None)
    max_tokens = limit_of(settings, checkpoint)
    tokenizer = load_tokenizer(checkpoint, max_tokens)
    model = cast(Any, load_classifier(checkpoint, device, choose_dtype(settings.dtype, device)))
    if model.config.num_labels != 1:
        raise CheckpointError(f"{checkpoint.folder / 'config.json'}: a reranker has 1 label; this has {model.config.num_labels}")
    classifier = FirstTokenClassifier(model)
    encoder = PackedEncoder(model.base_model, checkpoint.positions, device)
    reranker = CrossEncoder(RerankerInfo(settings.model, max_tokens), tokenizer, encoder, classifier)
    reranker.forward(reranker.tokenize("a", ["a"]))  # what the attention cannot do is refused here, not at the first request
    return reranker
