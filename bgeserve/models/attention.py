"""Attention over a packed row, registered with transformers, so that its own layers run padding-free.

transformers hands every attention keyword of every family to one function; a keyword that is not implemented here is refused by
name, because ignoring one (a soft cap, a window) would give wrong vectors without a sign. The functions for CUDA are in
`cuda_attention.py`; which one a model gets is decided once, at load.
"""

from __future__ import annotations

from dataclasses import dataclass
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
FLEX = "packed_flex"

QUERY_ROWS = 256
"""Rows of a capped or windowed attention computed at a time: its scores then grow with the batch's tokens, not with their square."""

# Already applied where attention is reached: rotary position embeddings are, and absolute ones are part of the input.
_WITHOUT_EFFECT_HERE = frozenset({"position_ids"})


def choose_attention(device: torch.device, dtype: torch.dtype, *, softcap: bool) -> str:
    """Name of the attention for `attn_implementation=`: the kernels for CUDA compute only half precision, and only one of them caps."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return RUNS
    return FLEX if softcap else VARLEN


@dataclass(frozen=True, slots=True)
class Rule:
    """Which keys a row sees, and what becomes of a score before the softmax."""

    scaling: float | None
    causal: bool
    window: int | None
    """A row sees itself and the `window` - 1 rows before it. None: all of its sequence."""
    softcap: float | None
    """Scores are bent into (-softcap, softcap) by tanh. None: left as they are."""

    @staticmethod
    def of(module: nn.Module, attention_mask: Tensor | None, keywords: dict[str, Any]) -> Rule:
        """Takes what it implements out of the keywords. Raises CheckpointError on what is left."""
        asked: dict[str, Any] = {**keywords, "attention_mask": attention_mask}
        stated = asked.pop("is_causal", None)
        rule = Rule(
            scaling=asked.pop("scaling", None),
            causal=bool(getattr(module, "is_causal", False) if stated is None else stated),
            window=asked.pop("sliding_window", None),
            softcap=asked.pop("softcap", None),
        )
        refused = {name for name, value in asked.items() if name not in _WITHOUT_EFFECT_HERE and not _is_off(value)}
        if rule.window is not None and not rule.causal:
            refused.add("sliding_window of a module that is not causal")
        if refused:
            raise CheckpointError(f"{type(module).__name__} asks for {sorted(refused)}, which packed attention does not implement")
        return rule

    def binds(self, length: int) -> bool:
        """Whether the fused kernel, which neither caps nor has a window, would give another result for a sequence of this length."""
        return self.softcap is not None or (self.window is not None and self.window < length)


def _is_off(value: object) -> bool:
    return value is None or value is False or (isinstance(value, float) and value == 0.0)


def attend_runs(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    boundaries: Boundaries,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """One dense attention per run of equal-length sequences.

    query: [1, heads, total, head size]; key and value may have fewer heads, each for a group of the query's; returns
    [1, total, heads, head size].
    """
    rule = Rule.of(module, attention_mask, keywords)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for start, count, length in boundaries.runs:
        rows = slice(start, start + count * length)
        q_run, k_run, v_run = (x[rows].unflatten(0, (count, length)).transpose(1, 2) for x in (q, k, v))
        attend = _attend_in_blocks if rule.binds(length) else _attend_fused
        attended = attend(q_run, k_run, v_run, rule)
        out[rows].unflatten(0, (count, length)).copy_(attended.transpose(1, 2))
    return out.unsqueeze(0), None


def _attend_fused(q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
    """q: [sequences, heads, length, head size]; the same comes back."""
    grouped = q.shape[1] != k.shape[1]
    return scaled_dot_product_attention(q, k, v, scale=rule.scaling, is_causal=rule.causal, enable_gqa=grouped)


def _attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
    """As `_attend_fused`, with soft cap and window, scores and softmax in float32 (transformers' eager attention of Gemma2)."""
    length, groups = q.shape[2], q.shape[1] // k.shape[1]
    scaling = q.shape[-1] ** -0.5 if rule.scaling is None else rule.scaling
    grouped = q.unflatten(1, (-1, groups))
    out = torch.empty_like(grouped)
    for first in range(0, length, QUERY_ROWS):
        end = min(first + QUERY_ROWS, length)
        low, high = (0 if rule.window is None else max(0, first - rule.window + 1)), (end if rule.causal else length)
        scores = (grouped[..., first:end, :] @ k[:, :, None, low:high].transpose(-1, -2)).float() * scaling
        if rule.softcap is not None:
            scores = torch.tanh(scores / rule.softcap) * rule.softcap
        if rule.causal:
            back = torch.arange(first, end, device=q.device)[:, None] - torch.arange(low, high, device=q.device)
            seen = (back >= 0) if rule.window is None else (back >= 0) & (back < rule.window)
            scores.masked_fill_(~seen, -torch.inf)
        out[..., first:end, :] = scores.softmax(-1).to(v.dtype) @ v[:, :, None, low:high]
    return out.flatten(1, 2)


def _no_mask(*_args: Any, **_keywords: Any) -> None:
    """A packed row needs no mask: the attention functions keep the sequences apart."""


def register(name: str, attend: Any) -> None:
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, _no_mask)


register(RUNS, attend_runs)
