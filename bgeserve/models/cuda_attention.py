"""Packed attention by kernels for CUDA: flash attention over sequences of any lengths, and flex attention where scores are soft-capped.

Imported with the loader, which chooses among the names that are registered here. Shapes are those of `attention.attend_runs`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from bgeserve.models.attention import FLEX, VARLEN, Rule, register
from bgeserve.models.packing import Boundaries


def attend_varlen(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    boundaries: Boundaries,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """All sequences in one flash-attention kernel."""
    from torch.nn.attention.varlen import varlen_attn

    rule = Rule.of(module, attention_mask, keywords)
    assert rule.softcap is None, "choose_attention gives models with a soft cap another function"
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    cu, longest = boundaries.cu_seqlens, boundaries.max_length
    left = -1 if rule.window is None else rule.window - 1
    attended = varlen_attn(
        q,
        k,
        v,
        cu,
        cu,
        longest,
        longest,
        scale=rule.scaling,
        window_size=(left, 0 if rule.causal else -1),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(attended, Tensor)
    return attended.unsqueeze(0), None


def attend_flex(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    boundaries: Boundaries,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """One kernel that is compiled for the soft cap and skips the blocks in which no row sees a key."""
    rule = Rule.of(module, attention_mask, keywords)
    attended = _flex(query.device.type)(
        query,
        key,
        value,
        score_mod=_capped(rule.softcap),
        block_mask=_block_mask(boundaries, rule),
        scale=rule.scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended.transpose(1, 2), None


@cache
def _flex(device: str) -> Any:
    """Uncompiled it materialises all scores: good for comparing on a CPU, not for serving."""
    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention


@cache
def _capped(softcap: float | None) -> Any:
    # One function per cap: flex attention compiles anew for each function object.
    if softcap is None:
        return None

    def cap(score: Tensor, batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap


def _block_mask(boundaries: Boundaries, rule: Rule) -> BlockMask:
    """The same for every layer with the same rule, so a batch keeps it."""
    kept = boundaries.block_masks.get((rule.causal, rule.window))
    if kept is None:
        sequence, total = boundaries.sequence_of_rows(), boundaries.total

        def seen(batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
            same = sequence[row] == sequence[key]
            if rule.causal:
                same = same & (row >= key)
            return same if rule.window is None else same & (row - key < rule.window)

        kept = create_block_mask(seen, None, None, total, total, device=boundaries.cu_seqlens.device)
        boundaries.block_masks[rule.causal, rule.window] = kept
    return kept


register(VARLEN, attend_varlen)
register(FLEX, attend_flex)
