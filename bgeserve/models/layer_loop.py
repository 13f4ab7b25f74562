"""The loop over a decoder's layers for rerankers that score below the last one: pairs are read out at their cutoff layers and leave the
batch after the last of them; passages are averaged to fewer tokens on the way.

The loop stands in the place of the model's own `layers`, so that transformers still embeds, rotates and normalises. Knows layers, rows and
depths. Does not know texts or heads. What is computed is FlagEmbedding's (inference/reranker/decoder_only/models/gemma_model.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bgeserve.models.packing import Boundaries

Int64Array = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Depths:
    """Where one pair is read out, and where its passage shrinks. Depth i is the hidden state before layer i (counted from 0)."""

    query_tokens: int
    """Before the passage; they stay as they are, and so do the prompt's."""
    passage_tokens: int
    prompt_tokens: int
    cutoffs: tuple[int, ...]
    """Ascending; nothing of this pair is computed from the last one on."""
    compress_at: frozenset[int] = frozenset()
    ratio: int = 1
    """That many neighbouring tokens of the passage become one."""

    @property
    def tokens(self) -> int:
        return self.query_tokens + self.passage_tokens + self.prompt_tokens

    def compressed(self) -> Depths:
        fewer = -(-self.passage_tokens // self.ratio)
        return Depths(self.query_tokens, fewer, self.prompt_tokens, self.cutoffs, self.compress_at, self.ratio)

    def averaged_tokens(self, depth: int) -> Int64Array:
        """How many of its tokens each of its rows is made of: 1, but in a passage that is compressed at this depth."""
        if depth not in self.compress_at or self.ratio == 1:
            return np.ones(self.tokens, np.int64)
        passage = np.full(-(-self.passage_tokens // self.ratio), self.ratio)
        passage[-1:] -= -self.passage_tokens % self.ratio
        return np.concatenate([np.ones(self.query_tokens, np.int64), passage, np.ones(self.prompt_tokens, np.int64)])


class LayerLoop(nn.Module):
    """Called by the model as if it were its only layer."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(
        self,
        hidden_states: Tensor,
        *,
        position_embeddings: tuple[Tensor, Tensor],
        boundaries: Boundaries,
        depths: Sequence[Depths],
        **_unused: Any,
    ) -> Tensor:
        """The states that are read out, [1, readouts, hidden size]: pair by pair in packed order, each in the order of its cutoffs.

        hidden_states: [1, total, hidden size], the packed row; position_embeddings: two of [1, total, rotary size]; depths: one of each
        packed sequence.
        """
        longest = boundaries.runs[-1].length
        # Rotations depend on the position alone, and the longest sequence, which is the row's last, has had every position.
        rotations = tuple(table[0, -longest:] for table in position_embeddings)
        rows = _Rows(hidden_states[0], position_embeddings, boundaries, list(enumerate(depths)))
        places: list[tuple[int, int]] = []
        states: list[Tensor] = []
        for depth in range(max(asked.cutoffs[-1] for asked in depths) + 1):
            read, state = rows.read(depth)
            places += [(pair, depth) for pair in read]
            states.append(state)
            rows = rows.without_finished(depth, rotations)
            if not rows.pairs:
                break
            hidden = self.layers[depth](rows.hidden[None], position_embeddings=rows.rotations, boundaries=rows.boundaries)
            rows = _Rows(hidden[0], rows.rotations, rows.boundaries, rows.pairs)
        order = sorted(range(len(places)), key=places.__getitem__)
        return torch.cat(states)[order][None]


@dataclass(frozen=True, slots=True)
class _Rows:
    """The batch at some depth."""

    hidden: Tensor
    """[total, hidden size]."""
    rotations: tuple[Tensor, ...]
    """Each [1, total, rotary size]."""
    boundaries: Boundaries
    pairs: list[tuple[int, Depths]]
    """In the row's order, with the place that each had at the start."""

    def read(self, depth: int) -> tuple[list[int], Tensor]:
        """Which pairs are read out here, and the state of each one's last token."""
        ends = np.cumsum([asked.tokens for _, asked in self.pairs])
        here = [i for i, (_, asked) in enumerate(self.pairs) if depth in asked.cutoffs]
        return [self.pairs[i][0] for i in here], self.hidden[self._on_device(ends[here] - 1)]

    def without_finished(self, depth: int, rotations: tuple[Tensor, ...]) -> _Rows:
        """The pairs that go deeper, with the passages averaged that are to be averaged here."""
        deeper = [i for i, (_, asked) in enumerate(self.pairs) if asked.cutoffs[-1] > depth]
        shrink = [i for i in deeper if depth in self.pairs[i][1].compress_at]
        if len(deeper) == len(self.pairs) and not shrink:
            return self
        if not deeper:
            return _Rows(self.hidden, self.rotations, self.boundaries, [])
        lengths = np.array([asked.tokens for _, asked in self.pairs])
        starts = np.cumsum(lengths) - lengths
        after = {i: self.pairs[i][1].compressed() if i in shrink else self.pairs[i][1] for i in deeper}
        order = sorted(deeper, key=lambda i: after[i].tokens)  # equal lengths are neighbours again
        kept = self.hidden[self._on_device(np.concatenate([np.arange(starts[i], starts[i] + lengths[i]) for i in order]))]
        if shrink:
            averaged = np.concatenate([self.pairs[i][1].averaged_tokens(depth) for i in order])
            kept = torch.segment_reduce(kept.float(), "mean", lengths=self._on_device(averaged)).to(kept.dtype)
        new_lengths = np.array([after[i].tokens for i in order])
        positions = self._on_device(np.concatenate([np.arange(length) for length in new_lengths]))
        return _Rows(
            kept,
            tuple(table[positions][None] for table in rotations),
            Boundaries.of(new_lengths, kept.device),
            [(self.pairs[i][0], after[i]) for i in order],
        )

    def _on_device(self, indices: Int64Array) -> Tensor:
        return torch.from_numpy(np.asarray(indices, np.int64)).to(self.hidden.device)
