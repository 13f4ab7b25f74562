"""Packed attention against a naive one: the whole matrix of scores of each sequence, masked and softened as one would write it down."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bgeserve.errors import CheckpointError
from bgeserve.models import attention
from bgeserve.models.attention import FLEX, QUERY_ROWS, RUNS, VARLEN, attend_runs, choose_attention
from bgeserve.models.cuda_attention import attend_flex, attend_varlen
from bgeserve.models.packing import Boundaries

CPU = torch.device("cpu")
SHORT = (3, 1, 3, 7, 1)
LONG = (1, 2, 40, QUERY_ROWS - 1, QUERY_ROWS, QUERY_ROWS + 1, QUERY_ROWS + 1, 2 * QUERY_ROWS + 70)
HEADS, SIZE = 4, 8
CAUSAL = nn.Module()
CAUSAL.is_causal = True  # type: ignore[assignment]
BOTH_WAYS = nn.Module()
BOTH_WAYS.is_causal = False  # type: ignore[assignment]

RULES = [
    {"causal": causal, "sliding_window": window, "softcap": softcap, "key_heads": key_heads}
    for causal, window, softcap, key_heads in product((False, True), (None, 1, 16, 300), (None, 2.0), (4, 2, 1))
    if causal or window is None  # no model has a window that looks both ways
]


def naive(query: Tensor, key: Tensor, value: Tensor, *, causal: bool, window: int | None, softcap: float | None, scaling: float) -> Tensor:
    """One sequence: [heads, length, size] -> [length, heads, size]."""
    groups = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    scores = query @ key.transpose(1, 2) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    length = query.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool)
    if causal:
        seen = seen.tril()
    if window is not None:
        seen = seen.triu(1 - window)
    return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value).transpose(0, 1)


def check(attend: Any, lengths: tuple[int, ...], rule: dict[str, Any], scaling: float = 0.7) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = tuple(sorted(lengths))
    heads = {"q": HEADS, "k": rule["key_heads"], "v": rule["key_heads"]}
    q, k, v = (torch.randn(1, n, sum(lengths), SIZE, generator=generator) for n in heads.values())
    keywords = {"sliding_window": rule["sliding_window"], "softcap": rule["softcap"], "scaling": scaling}
    module = CAUSAL if rule["causal"] else BOTH_WAYS
    packed, _ = attend(module, q, k, v, None, boundaries=Boundaries.of(np.array(lengths), CPU), **keywords)
    assert packed.shape == (1, sum(lengths), HEADS, SIZE)
    start = 0
    for length in lengths:
        rows = slice(start, start + length)
        alone = naive(
            q[0, :, rows], k[0, :, rows], v[0, :, rows],
            causal=rule["causal"], window=rule["sliding_window"], softcap=rule["softcap"], scaling=scaling,
        )  # fmt: skip
        torch.testing.assert_close(packed[0, rows], alone, atol=1e-5, rtol=1e-5)
        start += length


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_runs_are_the_naive_attention_on_both_sides_of_a_block(rule: dict[str, Any]) -> None:
    check(attend_runs, LONG, rule)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_flex_is_the_naive_attention(rule: dict[str, Any]) -> None:
    check(attend_flex, (*SHORT, 40, 150), rule)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8), st.sampled_from(RULES), st.sampled_from([1, 7, 16, QUERY_ROWS]),
    st.floats(0.1, 2),
)  # fmt: skip
def test_blocks_of_any_size_give_the_same(lengths: list[int], rule: dict[str, Any], query_rows: int, scaling: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "QUERY_ROWS", query_rows)
        check(attend_runs, tuple(lengths), rule, scaling)


def test_scores_of_a_capped_batch_grow_with_its_tokens_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than `QUERY_ROWS` rows of scores, nor more keys than the window lets them see."""
    sizes: list[tuple[int, ...]] = []
    right = Tensor.masked_fill_
    monkeypatch.setattr(Tensor, "masked_fill_", lambda self, *args: sizes.append(tuple(self.shape[-2:])) or right(self, *args))
    q, k, v = (torch.randn(1, HEADS, 2000, SIZE) for _ in range(3))
    attend_runs(CAUSAL, q, k, v, None, boundaries=Boundaries.of(np.array([2000]), CPU), softcap=2.0, sliding_window=16)
    assert max(rows for rows, _ in sizes) == QUERY_ROWS
    assert max(keys for _, keys in sizes) == QUERY_ROWS + 15


# --- what is refused, and who is chosen -------------------------------------------------------------------------------------


def states() -> tuple[Tensor, ...]:
    return tuple(torch.randn(1, HEADS, sum(SHORT), SIZE) for _ in range(3))


def boundaries() -> Boundaries:
    return Boundaries.of(np.array(sorted(SHORT)), CPU)


@pytest.mark.parametrize("attend", [attend_runs, attend_flex, attend_varlen])
@pytest.mark.parametrize("keywords", [{"dropout": 0.1}, {"something_new": 1}, {"s_aux": torch.ones(2)}, {"sliding_window": 16}])
def test_a_keyword_that_is_not_implemented_is_refused_by_name(attend: Any, keywords: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(keywords))):
        attend(BOTH_WAYS, *states(), None, boundaries=boundaries(), **keywords)


@pytest.mark.parametrize("attend", [attend_runs, attend_flex, attend_varlen])
def test_a_mask_is_refused(attend: Any) -> None:
    with pytest.raises(CheckpointError, match="attention_mask"):
        attend(BOTH_WAYS, *states(), torch.zeros(1), boundaries=boundaries())


@pytest.mark.parametrize("keywords", [{"softcap": None}, {"sliding_window": None}, {"position_ids": torch.zeros(1, 15)}, {"dropout": 0.0}])
def test_keywords_without_effect_are_taken(keywords: dict[str, Any]) -> None:
    attend_runs(BOTH_WAYS, *states(), None, boundaries=boundaries(), **keywords)


def test_a_call_may_say_that_a_module_is_causal_or_not() -> None:
    q, k, v = states()
    asked, _ = attend_runs(BOTH_WAYS, q, k, v, None, boundaries=boundaries(), is_causal=True)
    built, _ = attend_runs(CAUSAL, q, k, v, None, boundaries=boundaries())
    unasked, _ = attend_runs(CAUSAL, q, k, v, None, boundaries=boundaries(), is_causal=False)
    torch.testing.assert_close(asked, built)
    assert not torch.allclose(asked, unasked)


def test_kernels_are_for_half_precision_on_cuda_alone() -> None:
    cuda = torch.device("cuda")
    for dtype in (torch.float16, torch.bfloat16):
        assert choose_attention(cuda, dtype, softcap=False) == VARLEN
        assert choose_attention(cuda, dtype, softcap=True) == FLEX
    for device, dtype in ((cuda, torch.float32), (CPU, torch.bfloat16), (CPU, torch.float32)):
        for softcap in (False, True):
            assert choose_attention(device, dtype, softcap=softcap) == RUNS


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_kernels_agree_with_runs(dtype: torch.dtype, rule: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = np.array(sorted((*SHORT, 40, 300, 700)))
    heads = (HEADS, rule["key_heads"], rule["key_heads"])
    q, k, v = (torch.randn(1, n, int(lengths.sum()), 64, generator=generator).to("cuda", dtype) for n in heads)
    bounds = Boundaries.of(lengths, torch.device("cuda"))
    keywords = {"sliding_window": rule["sliding_window"], "softcap": rule["softcap"], "scaling": 0.3}
    module = CAUSAL if rule["causal"] else BOTH_WAYS
    runs, _ = attend_runs(module, q, k, v, None, boundaries=bounds, **keywords)
    for attend in (attend_flex,) if rule["softcap"] else (attend_flex, attend_varlen):
        ours, _ = attend(module, q, k, v, None, boundaries=bounds, **keywords)
        torch.testing.assert_close(ours, runs, atol=2e-2, rtol=2e-2)
