"""Encoder rerankers against transformers' own padded forward of the same ids: every pair, also those that FlagEmbedding's way from ids to
text and back changes (`parity/pairs.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from bgeserve.models.tokenizing import Tokenizer, TokenSequence
from tests.models.folders import CROSS_ENCODERS, Folders
from tests.models.loaded import Reranker
from tests.models.parity.case import LOGIT_TOLERANCE
from tests.models.parity.pairs import PAIRS, PASSAGES


@torch.inference_mode()
def padded_logits(folder: Path, items: Sequence[TokenSequence]) -> list[float]:
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder)
    longest = max(item.cost for item in items)

    def padded(rows: Sequence[np.ndarray], fill: int) -> Tensor:
        return torch.tensor([[*row.tolist(), *[fill] * (longest - len(row))] for row in rows])

    types = [np.zeros_like(item.ids) if item.type_ids is None else item.type_ids for item in items]
    return model(
        input_ids=padded([item.ids for item in items], model.config.pad_token_id),
        attention_mask=padded([np.ones_like(item.ids) for item in items], 0),
        token_type_ids=padded(types, 0),
    ).logits.flatten().tolist()  # fmt: skip


@pytest.mark.parametrize("name", CROSS_ENCODERS)
def test_logits_of_every_pair_are_the_padded_forwards(name: str, folders: Folders) -> None:
    model = Reranker(folders[name])
    items = model.items_of(PAIRS)
    assert model.scores(items) == pytest.approx(padded_logits(folders[name], items), abs=LOGIT_TOLERANCE)


def test_token_types_matter(bert_reranker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Tokenizer.encode_pairs
    model = Reranker(bert_reranker)
    expected = padded_logits(bert_reranker, model.items("query", PASSAGES))

    def without_types(*args: Any, **keywords: Any) -> list[TokenSequence]:
        return [TokenSequence(s.ids, s.truncated) for s in right(*args, **keywords)]

    monkeypatch.setattr(Tokenizer, "encode_pairs", without_types)
    assert model.scores(model.items("query", PASSAGES)) != pytest.approx(expected, abs=LOGIT_TOLERANCE)
