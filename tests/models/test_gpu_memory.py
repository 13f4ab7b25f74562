"""The estimate of a GPU's memory, against what torch allocates: on a CPU with the same modules, and on CUDA where there is one."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from bgeserve.errors import SettingsError
from bgeserve.models import gpu_memory
from bgeserve.models.attention import choose_attention
from bgeserve.models.checkpoint import Checkpoint
from bgeserve.models.gpu_memory import GIB, Need
from bgeserve.models.loading import load_transformer
from bgeserve.models.packing import PackedBatch
from bgeserve.models.tokenizing import TokenSequence
from bgeserve.settings import EmbedderSettings
from tests.models.folders import DECODER_EMBEDDERS, ENCODER_EMBEDDERS, M3_OF_8192, Folders

CPU = torch.device("cpu")
TOKENS, LENGTH = 512, 8
"""Short, so that the scores which attention writes out on a CPU, and on a GPU does not, are next to nothing."""
WIDTH, HEADS, LAYERS = 256, 8, 3


def peak_bytes(run: Callable[[], Tensor]) -> int:
    """Above what there was before, by every allocation and release that torch's profiler has seen."""
    run()  # what is made once is not a batch's
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = run()
    del result
    assert profile.profiler is not None
    events = sorted(
        (event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"), key=lambda event: event.start_ns()
    )
    held = most = 0
    for event in events:
        held += event.nbytes()
        most = max(most, held)
    return most


@cache
def multiplies_through_float32(dtype: torch.dtype) -> bool:
    """As oneDNN does where the CPU has no instructions for bfloat16: a product then takes three times its bytes."""
    weights, tokens = torch.ones(WIDTH, WIDTH, dtype=dtype), torch.ones(TOKENS, WIDTH, dtype=dtype)
    return peak_bytes(lambda: nn.functional.linear(tokens, weights)) > 2 * tokens.nbytes


@dataclass(frozen=True)
class Sized:
    """A family's modules with random weights, in the usual proportions of real ones."""

    checkpoint: Checkpoint
    transformer: Any

    @staticmethod
    def like(folder: Path, device: torch.device, dtype: torch.dtype) -> Sized:
        checkpoint = Checkpoint.read(folder)
        grouped = {"num_key_value_heads": HEADS // 4, "head_dim": WIDTH // HEADS} if checkpoint.is_causal else {}
        config: Any = AutoConfig.from_pretrained(
            folder,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_attention_heads=HEADS,
            num_hidden_layers=LAYERS,
            use_cache=False,
            **grouped,
        )
        attention = choose_attention(device, dtype, softcap=checkpoint.soft_caps_attention)
        transformer: Any = AutoModel.from_config(config, attn_implementation=attention).to(device, dtype).eval()
        transformer.pooler = None
        return Sized(replace(checkpoint, config=config.to_dict()), transformer)

    def forward(self, device: torch.device) -> Callable[[], Tensor]:
        """Without the CPU's packed layers: these are the modules that a GPU runs."""
        sequences = [TokenSequence(np.arange(5, 5 + LENGTH, dtype=np.int32)) for _ in range(TOKENS // LENGTH)]
        batch = PackedBatch.pack(sequences, self.checkpoint.positions, device)
        types = {} if batch.token_type_ids is None else {"token_type_ids": batch.token_type_ids}

        @torch.inference_mode()
        def run() -> Tensor:
            output = self.transformer(input_ids=batch.input_ids, position_ids=batch.position_ids, boundaries=batch.boundaries, **types)
            return nn.functional.normalize(output.last_hidden_state[0].float(), dim=-1)

        return run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", [*ENCODER_EMBEDDERS, *DECODER_EMBEDDERS])
def test_a_batch_takes_what_is_estimated(folders: Folders, name: str, dtype: torch.dtype) -> None:
    if multiplies_through_float32(dtype):
        pytest.skip("this CPU multiplies bfloat16 by way of float32, and holds each result in both")
    sized = Sized.like(folders[name], CPU, dtype)
    estimated = TOKENS * gpu_memory.token_bytes(sized.checkpoint, dtype)
    assert estimated / peak_bytes(sized.forward(CPU)) == pytest.approx(1, abs=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", [*ENCODER_EMBEDDERS, *DECODER_EMBEDDERS])
def test_a_gpu_takes_no_more_than_is_estimated(folders: Folders, name: str) -> None:
    device = torch.device("cuda")
    sized = Sized.like(folders[name], device, torch.bfloat16)
    run = sized.forward(device)
    run()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    assert torch.cuda.max_memory_allocated() - before <= 1.1 * TOKENS * gpu_memory.token_bytes(sized.checkpoint, torch.bfloat16)


@pytest.mark.parametrize("name", ["bge-m3", "bge-multilingual-gemma2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_weights_take_what_their_files_say(folders: Folders, name: str, dtype: torch.dtype) -> None:
    checkpoint = Checkpoint.read(folders[name])
    loaded: Any = load_transformer(checkpoint, CPU, dtype)
    held = sum(parameter.nbytes for parameter in loaded.parameters())
    # What the file has more is a pooler, which is let go.
    assert held <= gpu_memory.weights_bytes(checkpoint, dtype) <= 1.1 * held


def need(**changed: int) -> Need:
    return replace(Need(weights=1 * GIB, token=100_000, batch_tokens=16_384, workers=2), **changed)


def settings(gpus: float) -> EmbedderSettings:
    return EmbedderSettings(model="BAAI/bge-m3", gpus=gpus)


def test_what_fits_its_share_starts() -> None:
    gpu_memory.check_fits(settings(0.25), need(), 80 * GIB)
    gpu_memory.check_fits(settings(0.0625), need(), 80 * GIB)


@pytest.mark.parametrize(
    ("gpus", "needed", "said"),
    [
        (
            0.25,
            need(batch_tokens=131_072),
            "BAAI/bge-m3 needs 25.9 GiB of the GPU: weights 1.0 + 2 x 131,072 tokens of a batch 24.4 + CUDA 0.5; its share is "
            "0.25 x 80.0 = 20.0 GiB: lower max_batch_tokens (to 99,321 at most), or raise gpus",
        ),
        (
            0.1,
            need(weights=18 * GIB),
            "BAAI/bge-m3 needs 21.6 GiB of the GPU: weights 18.0 + 2 x 16,384 tokens of a batch 3.1 + CUDA 0.5; its share is "
            "0.1 x 80.0 = 8.0 GiB: raise gpus",
        ),
        (
            2,
            need(weights=90 * GIB),
            "BAAI/bge-m3 needs 93.6 GiB of the GPU: weights 90.0 + 2 x 16,384 tokens of a batch 3.1 + CUDA 0.5; its share is "
            "1 x 80.0 = 80.0 GiB: raise gpus",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(gpus: float, needed: Need, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        gpu_memory.check_fits(settings(gpus), needed, 80 * GIB)
    assert refused.value.message == said
    assert refused.value.field == "gpus"


def test_the_most_tokens_that_are_named_do_fit() -> None:
    gpu_memory.check_fits(settings(0.25), need(batch_tokens=99_321), 80 * GIB)
    with pytest.raises(SettingsError):
        gpu_memory.check_fits(settings(0.25), need(batch_tokens=99_322), 80 * GIB)


def test_a_text_above_the_batch_counts_as_what_it_takes_alone(folders: Folders) -> None:
    checkpoint = Checkpoint.read(folders[M3_OF_8192])
    small = EmbedderSettings(model="m", gpus=0.5, max_batch_tokens=1000)
    assert gpu_memory.need_of(small, checkpoint, torch.bfloat16).batch_tokens == checkpoint.max_tokens > 1000
    short = EmbedderSettings(model="m", gpus=0.5, max_batch_tokens=1000, max_tokens=512)
    assert gpu_memory.need_of(short, checkpoint, torch.bfloat16).batch_tokens == 1000
