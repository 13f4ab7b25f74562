"""One batch as one row: texts laid end to end, without padding.

Knows ids, positions and where each sequence begins. Does not know texts, models or attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgeserve.models.tokenizing import TokenSequence

Int64Array = NDArray[np.int64]


class Run(NamedTuple):
    """`sequences` neighbours of one `length`, from row `start` on: a rectangle, which attention computes in one call."""

    start: int
    sequences: int
    length: int


@dataclass(frozen=True, slots=True)
class Boundaries:
    """Where each of n sequences lies in the row; travels through the transformer to the attention function."""

    cu_seqlens: Tensor
    """int32 [n + 1], on the model's device: sequence i is rows cu_seqlens[i] to cu_seqlens[i + 1]."""
    max_length: int
    runs: tuple[Run, ...]
    block_masks: dict[tuple[bool, int | None], Any] = field(default_factory=dict[tuple[bool, "int | None"], Any])
    """What flex attention made of this batch, by rule: made once for all layers."""

    @staticmethod
    def of(lengths: Int64Array, device: torch.device) -> Boundaries:
        """Of n sequences that lie one after the other."""
        ends = np.cumsum(lengths)
        return Boundaries(
            cu_seqlens=torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32)).to(device, non_blocking=True),
            max_length=int(lengths.max()),
            runs=tuple(_runs(lengths, ends - lengths)),
        )

    @property
    def total(self) -> int:
        last = self.runs[-1]
        return last.start + last.sequences * last.length

    def sequence_of_rows(self) -> Tensor:
        """int32 [total]: which sequence each row belongs to."""
        numbers = torch.arange(len(self.cu_seqlens) - 1, dtype=torch.int32, device=self.cu_seqlens.device)
        return torch.repeat_interleave(numbers, self.cu_seqlens.diff(), output_size=self.total)


@dataclass(frozen=True, slots=True)
class PositionScheme:
    """How a model numbers its positions: from 0, or (RoBERTa's way) from pad_id + 1, with pad tokens kept at pad_id and not counted."""

    pad_id: int | None = None

    @property
    def first(self) -> int:
        return 0 if self.pad_id is None else self.pad_id + 1

    def positions(self, ids: Int64Array, starts: Int64Array, lengths: Int64Array) -> Int64Array:
        if self.pad_id is None:
            return np.arange(len(ids)) - np.repeat(starts, lengths)
        counted = ids != self.pad_id
        running = np.cumsum(counted)
        before = running[starts] - counted[starts]
        return (running - np.repeat(before, lengths)) * counted + self.pad_id


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """A batch of n sequences with `total` tokens: its memory depends on `total` alone, however ragged the lengths."""

    input_ids: Tensor
    """int64 [1, total]."""
    position_ids: Tensor
    """int64 [1, total]."""
    token_type_ids: Tensor | None
    """int64 [1, total]; None where all are 0."""
    boundaries: Boundaries
    ids: Int64Array
    """`input_ids` as the host keeps them, [total]."""
    lengths: Int64Array
    """[n], ascending."""
    order: Int64Array
    """[n]: the caller's index of each packed sequence."""

    @staticmethod
    def pack(sequences: Sequence[TokenSequence], scheme: PositionScheme, device: torch.device) -> PackedBatch:
        """Lay the sequences end to end, the short ones first, so that equal lengths are neighbours."""
        lengths = np.fromiter((len(s.ids) for s in sequences), np.int64, len(sequences))
        order = np.argsort(lengths, kind="stable")
        lengths = lengths[order]
        ends = np.cumsum(lengths)
        starts = ends - lengths
        ids = np.concatenate([sequences[i].ids for i in order]).astype(np.int64)
        types = [sequences[i].type_ids for i in order]

        def row(values: Int64Array) -> Tensor:
            return torch.from_numpy(values).to(device, non_blocking=True).unsqueeze(0)

        return PackedBatch(
            input_ids=row(ids),
            position_ids=row(scheme.positions(ids, starts, lengths)),
            token_type_ids=None if all(t is None for t in types) else row(_concatenate_types(types, lengths)),
            boundaries=Boundaries.of(lengths, device),
            ids=ids,
            lengths=lengths,
            order=order,
        )


def _runs(lengths: Int64Array, starts: Int64Array) -> Iterator[Run]:
    """Neighbours of equal length, in the row's order."""
    first = np.flatnonzero(np.diff(lengths, prepend=-1))
    counts = np.diff(first, append=len(lengths))
    for i, count in zip(first, counts, strict=True):
        yield Run(int(starts[i]), int(count), int(lengths[i]))


def _concatenate_types(types: Sequence[NDArray[np.int32] | None], lengths: Int64Array) -> Int64Array:
    filled = [np.zeros(n, np.int64) if t is None else t for t, n in zip(types, lengths, strict=True)]
    return np.concatenate(filled).astype(np.int64)
