"""Packed linear layers are the plain ones, to rounding, and take their place."""

from __future__ import annotations

import platform

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from bgeserve.models.cpu_linear import PackedLinear, pack_linears
from bgeserve.models.runtime import cpu_computes_bfloat16

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="layers are packed on x86 alone")


def linear(*, bias: bool, dtype: torch.dtype) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(48, 96, bias=bias).to(dtype).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 48), (1, 37, 48), (1, 700, 48), (5, 48)])
def test_a_packed_layer_gives_the_plain_ones_results(shape: tuple[int, ...], bias: bool) -> None:
    layer = linear(bias=bias, dtype=torch.float32)
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(PackedLinear(layer)(rows), layer(rows), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not cpu_computes_bfloat16(), reason="this CPU does not compute bfloat16")
def test_a_packed_layer_in_bfloat16() -> None:
    layer = linear(bias=True, dtype=torch.bfloat16)
    rows = torch.randn(1, 64, 48, generator=torch.Generator().manual_seed(1)).bfloat16()
    packed = PackedLinear(layer)(rows)
    assert packed.dtype == torch.bfloat16
    torch.testing.assert_close(packed, layer(rows), atol=2e-2, rtol=2e-2)


def test_every_layer_is_replaced_but_those_that_cannot_be() -> None:
    model = nn.Sequential(linear(bias=True, dtype=torch.float32), nn.Sequential(nn.GELU(), linear(bias=False, dtype=torch.float64)))
    pack_linears(model)
    assert isinstance(model[0], PackedLinear)
    inner = model[1]
    assert isinstance(inner, nn.Sequential)
    assert type(inner[1]) is nn.Linear  # no such layout in float64
    assert [parameter.dtype for parameter in model.parameters()] == [torch.float64]  # the packed layer's own weights are gone


class Block(nn.Module):
    """Named as transformers names the first half of a feed-forward block."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.dense = linear(bias=True, dtype=torch.float32)
        self.intermediate_act_fn = activation

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.intermediate_act_fn(self.dense(rows))


@pytest.mark.parametrize(("name", "joined"), [("gelu", True), ("gelu_python", False), ("gelu_new", False), ("relu", False)])
def test_the_exact_gelu_behind_a_layer_is_computed_with_it_and_no_other_activation_is(name: str, joined: bool) -> None:
    block = Block(ACT2FN[name])
    rows = 3 * torch.randn(1, 37, 48, generator=torch.Generator().manual_seed(1))
    expected = block(rows)
    pack_linears(block)
    assert isinstance(block.intermediate_act_fn, nn.Identity) == joined
    torch.testing.assert_close(block(rows), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(block.dense(rows), expected) or joined


def test_without_the_operators_layers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    model = nn.Sequential(linear(bias=True, dtype=torch.float32))
    pack_linears(model)
    assert type(model[0]) is nn.Linear
