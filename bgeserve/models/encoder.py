"""The transformer itself: sequences in, hidden states out. transformers' own class, run on packed rows.

Knows batches. Does not know where the weights come from, or what the hidden states are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bgeserve.errors import ComputeError
from bgeserve.models.cpu_linear import pack_linears
from bgeserve.models.packing import PackedBatch, PositionScheme
from bgeserve.models.tokenizing import TokenSequence


class PackedEncoder:
    """An encoder whose weights several threads share: it keeps nothing between calls."""

    def __init__(self, transformer: Any, positions: PositionScheme, device: torch.device) -> None:
        """On a CPU the transformer's linear layers are replaced by packed ones."""
        if device.type == "cpu":
            pack_linears(transformer)
        self._transformer = transformer
        self._positions = positions
        self._device = device

    def pack(self, sequences: Sequence[TokenSequence]) -> PackedBatch:
        return PackedBatch.pack(sequences, self._positions, self._device)

    def __call__(self, sequences: Sequence[TokenSequence]) -> tuple[Tensor, PackedBatch]:
        """Hidden states [total tokens, hidden size] in the model's dtype, in the order of the batch that they belong to."""
        batch = self.pack(sequences)
        return self.run(batch), batch

    @torch.inference_mode()
    def run(self, batch: PackedBatch, **more: Any) -> Tensor:
        """`more` travels to the model's layers. Raises ComputeError when float16 was too narrow for these texts."""
        types = {} if batch.token_type_ids is None else {"token_type_ids": batch.token_type_ids}
        output = self._transformer(input_ids=batch.input_ids, position_ids=batch.position_ids, boundaries=batch.boundaries, **types, **more)
        hidden: Tensor = output.last_hidden_state[0]
        if hidden.dtype == torch.float16 and not torch.isfinite(hidden).all():
            raise ComputeError("float16 overflowed: a hidden state went beyond 65,504; serve this model in bfloat16 or float32")
        return hidden
