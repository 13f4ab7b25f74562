"""The transformer itself: sequences in, hidden states of every token out. transformers' own class, run on packed rows.

Knows batches. Does not know where the weights come from, or what the hidden states are for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bgeserve.models.packing import PackedBatch, PositionScheme
from bgeserve.models.tokenizing import TokenSequence


class PackedEncoder:
    """An encoder whose weights several threads share: it keeps nothing between calls."""

    def __init__(self, transformer: nn.Module, positions: PositionScheme, device: torch.device) -> None:
        self._transformer = transformer
        self._positions = positions
        self._device = device

    @torch.inference_mode()
    def __call__(self, sequences: Sequence[TokenSequence]) -> tuple[Tensor, PackedBatch]:
        """Hidden states as float32 [total tokens, hidden size], in the order of the batch that they belong to."""
        batch = PackedBatch.pack(sequences, self._positions, self._device)
        output = self._transformer(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            token_type_ids=batch.token_type_ids,
            boundaries=batch.boundaries,
        )
        return output.last_hidden_state[0].float(), batch
