"""Linear layers as oneDNN wants them on a CPU: weights laid out once, at load, and not at every product (benchmarks/results/ has the gain).

Knows linear layers, and how transformers calls the activation behind one. Does not know models. The two operators are those that
TorchInductor uses for frozen weights on a CPU; torch has no public name for them, so where they are missing, or were never tried, the
layers stay as they are.
"""

from __future__ import annotations

import os
import platform

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

from bgeserve.models.runtime import cpu_computes_bfloat16

KEPT_PRODUCTS = 16
"""oneDNN, and torch's layer over it, each keep a compiled product for every number of rows that they have met: by default 1,024 of nearly a
megabyte. Packed batches hardly ever have the same number twice, and one batch needs no more than a few."""
CACHE_VARIABLES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


class PackedLinear(nn.Module):
    """nn.Linear's results (to rounding), from a private copy of its weights; with `gelu`, those of the exact GELU behind it."""

    def __init__(self, linear: nn.Linear, *, gelu: bool = False) -> None:
        super().__init__()
        self._activation = "gelu" if gelu else "none"
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self._bias: Tensor | None = None if linear.bias is None else linear.bias.detach()  # pyright: ignore[reportUnnecessaryComparison]

    def forward(self, rows: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, self._activation, [], "none")


def pack_linears(model: nn.Module) -> None:
    """In place. Each layer's own weight is let go as soon as it is laid out, so memory grows by one layer at most."""
    # Both are read at the first product; whoever runs the process may have said otherwise.
    for variable in CACHE_VARIABLES:
        os.environ.setdefault(variable, str(KEPT_PRODUCTS))
    dtypes = _packable_dtypes()
    for module in model.modules():
        # What lies between the two halves of a feed-forward block is its widest tensor: oneDNN applies GELU before it writes it.
        dense, activation = getattr(module, "dense", None), getattr(module, "intermediate_act_fn", None)
        if type(dense) is nn.Linear and dense.weight.dtype in dtypes and _is_exact_gelu(activation):
            module.dense, module.intermediate_act_fn = PackedLinear(dense, gelu=True), nn.Identity()
        for name, child in module.named_children():
            if type(child) is nn.Linear and child.weight.dtype in dtypes:
                setattr(module, name, PackedLinear(child))


def _is_exact_gelu(activation: object) -> bool:
    return isinstance(activation, GELUActivation) and activation.act is nn.functional.gelu


def _packable_dtypes() -> frozenset[torch.dtype]:
    has_operators = hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available() or not has_operators:
        return frozenset()
    return frozenset({torch.float32, torch.bfloat16} if cpu_computes_bfloat16() else {torch.float32})
