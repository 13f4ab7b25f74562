from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from bgeserve.errors import CheckpointError
from bgeserve.models.attention import RUNS, VARLEN, attend_runs, attend_varlen, choose_attention
from bgeserve.models.packing import PackedBatch, PositionScheme
from bgeserve.models.tokenizing import TokenSequence

LENGTHS = (3, 1, 3, 7, 1)
HEADS, SIZE = 2, 4


def boundaries() -> Any:
    sequences = [TokenSequence(np.ones(n, np.int32)) for n in LENGTHS]
    return PackedBatch.pack(sequences, PositionScheme(), torch.device("cpu")).boundaries


def states(seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, HEADS, sum(LENGTHS), SIZE, generator=generator) for _ in range(3))


@pytest.mark.parametrize("scaling", [None, 0.1, 2.0])
def test_each_sequence_attends_to_itself_alone(scaling: float | None) -> None:
    query, key, value = states()
    out, _ = attend_runs(nn.Module(), query, key, value, None, boundaries=boundaries(), scaling=scaling)
    start = 0
    for length in sorted(LENGTHS):
        rows = slice(start, start + length)
        alone = scaled_dot_product_attention(query[:, :, rows], key[:, :, rows], value[:, :, rows], scale=scaling)
        torch.testing.assert_close(out[:, rows], alone.transpose(1, 2))
        start += length


@pytest.mark.parametrize("attend", [attend_runs, attend_varlen])
@pytest.mark.parametrize(
    "keywords",
    [{"softcap": 50.0}, {"sliding_window": 16}, {"is_causal": True}, {"dropout": 0.1}, {"something_new": 1}, {"s_aux": torch.ones(2)}],
)
def test_a_keyword_that_is_not_implemented_is_refused_by_name(attend: Any, keywords: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(keywords))):
        attend(nn.Module(), *states(), None, boundaries=boundaries(), **keywords)


@pytest.mark.parametrize("keywords", [{"softcap": None}, {"sliding_window": None}, {"position_ids": torch.zeros(1, 15)}, {"dropout": 0.0}])
def test_keywords_without_effect_are_taken(keywords: dict[str, Any]) -> None:
    attend_runs(nn.Module(), *states(), None, boundaries=boundaries(), **keywords)


def test_a_mask_and_a_causal_module_are_refused() -> None:
    with pytest.raises(CheckpointError, match="attention_mask"):
        attend_runs(nn.Module(), *states(), torch.zeros(1), boundaries=boundaries())
    causal = nn.Module()
    causal.is_causal = True  # type: ignore[assignment]
    with pytest.raises(CheckpointError, match="is_causal"):
        attend_runs(causal, *states(), None, boundaries=boundaries())


def test_varlen_is_for_half_precision_on_cuda_alone() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert choose_attention(cuda, torch.bfloat16) == choose_attention(cuda, torch.float16) == VARLEN
    assert choose_attention(cuda, torch.float32) == choose_attention(cpu, torch.bfloat16) == choose_attention(cpu, torch.float32) == RUNS


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_varlen_agrees_with_runs(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 4, sum(LENGTHS), 64, generator=generator).to("cuda", dtype) for _ in range(3))
    sequences = [TokenSequence(np.ones(n, np.int32)) for n in LENGTHS]
    bounds = PackedBatch.pack(sequences, PositionScheme(), torch.device("cuda")).boundaries
    ours, _ = attend_varlen(nn.Module(), query, key, value, None, boundaries=bounds, scaling=0.3)
    runs, _ = attend_runs(nn.Module(), query, key, value, None, boundaries=bounds, scaling=0.3)
    torch.testing.assert_close(ours, runs, atol=2e-2, rtol=2e-2)
