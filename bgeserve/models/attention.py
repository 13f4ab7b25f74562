"""Attention over a packed row, registered with transformers, so that its own layers run padding-free.

transformers hands every attention keyword of every family to one function; a keyword that is not implemented here is refused by
name, because ignoring one (a soft cap, a window) would give wrong vectors without a sign.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from bgeserve.errors import CheckpointError
from bgeserve.models.packing import Boundaries

RUNS = "packed_runs"
VARLEN = "packed_varlen"

# Already applied where attention is reached: rotary position embeddings are, and absolute ones are part of the input.
_WITHOUT_EFFECT_HERE = frozenset({"position_ids"})


def choose_attention(device: torch.device, dtype: torch.dtype) -> str:
    """Name of the attention for `attn_implementation=`: varlen's kernel computes only half precision, and only on CUDA."""
    return VARLEN if device.type == "cuda" and dtype in (torch.float16, torch.bfloat16) else RUNS


def attend_runs(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    boundaries: Boundaries,
    scaling: float | None = None,
    dropout: float = 0.0,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """One dense attention per run of equal-length sequences.

    query, key, value: [1, heads, total, head size]; returns [1, total, heads, head size].
    """
    _refuse_unimplemented(module, attention_mask, dropout, keywords)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for start, count, length in boundaries.runs:
        rows = slice(start, start + count * length)
        q_run, k_run, v_run = (x[rows].unflatten(0, (count, length)).transpose(1, 2) for x in (q, k, v))
        attended = scaled_dot_product_attention(q_run, k_run, v_run, scale=scaling)
        out[rows].unflatten(0, (count, length)).copy_(attended.transpose(1, 2))
    return out.unsqueeze(0), None


def attend_varlen(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    boundaries: Boundaries,
    scaling: float | None = None,
    dropout: float = 0.0,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """All sequences in one flash-attention kernel; shapes as `attend_runs`."""
    from torch.nn.attention.varlen import varlen_attn

    _refuse_unimplemented(module, attention_mask, dropout, keywords)
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    cu, longest = boundaries.cu_seqlens, boundaries.max_length
    attended = varlen_attn(q, k, v, cu, cu, longest, longest, scale=scaling)
    assert isinstance(attended, Tensor)
    return attended.unsqueeze(0), None


def _refuse_unimplemented(module: nn.Module, attention_mask: Tensor | None, dropout: float, keywords: dict[str, Any]) -> None:
    causal = keywords.get("is_causal") or getattr(module, "is_causal", False)
    asked = {**keywords, "attention_mask": attention_mask, "dropout": dropout or None, "is_causal": causal or None}
    if refused := sorted(name for name, value in asked.items() if value is not None and name not in _WITHOUT_EFFECT_HERE):
        raise CheckpointError(f"{type(module).__name__} asks for {refused}, which packed attention does not implement")


def _no_mask(*_args: Any, **_keywords: Any) -> None:
    """A packed row needs no mask: the attention functions keep the sequences apart."""


for _name, _attend in ((RUNS, attend_runs), (VARLEN, attend_varlen)):
    AttentionInterface.register(_name, _attend)
    AttentionMaskInterface.register(_name, _no_mask)
