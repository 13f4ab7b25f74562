"""Whether a model and its batches fit the share of a GPU that its replica has: weights + workers x the widest moment of a batch.

Knows config.json's sizes and what lives at a time in one layer, computed without gradients: nothing is kept between layers, and no keys and
values are cached. An estimate, which tests compare with what torch allocates on a CPU for every family (within 2 % at usual proportions).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from bgeserve.errors import SettingsError
from bgeserve.models.checkpoint import Checkpoint
from bgeserve.settings import ModelSettings

GIB = 2**30
CONTEXT_BYTES = GIB // 2
"""What CUDA and its libraries take in each process before the first tensor."""
FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of one replica."""

    weights: int
    token: int
    """Of one token of a batch, at the widest moment."""
    batch_tokens: int
    workers: int

    @property
    def batches(self) -> int:
        return self.workers * self.batch_tokens * self.token

    @property
    def total(self) -> int:
        return self.weights + self.batches + CONTEXT_BYTES


def hold_to_share(settings: ModelSettings, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
    """On a GPU: refuse a model that does not fit its share, and let this process allocate no more than that, since others share the
    device. Raises SettingsError."""
    if device.type == "cuda":
        device_bytes = torch.cuda.get_device_properties(device).total_memory
        check_fits(settings, need_of(settings, checkpoint, dtype), device_bytes)
        if settings.gpus < 1:
            torch.cuda.set_per_process_memory_fraction(settings.gpus - CONTEXT_BYTES / device_bytes, device)


def check_fits(settings: ModelSettings, need: Need, device_bytes: int) -> None:
    """Raises SettingsError with the numbers. A model is on one device: what is above one whole GPU is not its own."""
    share = min(1.0, settings.gpus)
    room = int(share * device_bytes)
    if need.total <= room:
        return
    fitting = (room - need.weights - CONTEXT_BYTES) // (need.workers * need.token)
    lower = f"lower max_batch_tokens (to {fitting:,} at most), or " if fitting >= need.batch_tokens // 16 else ""
    parts = f"weights {need.weights / GIB:.1f} + {need.workers} x {need.batch_tokens:,} tokens of a batch {need.batches / GIB:.1f}"
    raise SettingsError(
        f"{settings.model} needs {need.total / GIB:.1f} GiB of the GPU: {parts} + CUDA {CONTEXT_BYTES / GIB:.1f}; its share is "
        f"{share:g} x {device_bytes / GIB:.1f} = {room / GIB:.1f} GiB: {lower}raise gpus",
        field="gpus",
    )


def need_of(settings: ModelSettings, checkpoint: Checkpoint, dtype: torch.dtype) -> Need:
    # A text above max_batch_tokens runs alone.
    longest = settings.max_tokens or checkpoint.max_tokens
    return Need(
        weights_bytes(checkpoint, dtype),
        token_bytes(checkpoint, dtype),
        max(settings.resolved_max_batch_tokens, longest),
        settings.resolved_workers,
    )


def token_bytes(checkpoint: Checkpoint, dtype: torch.dtype) -> int:
    """The widest of a layer's two halves and the heads, which compute in float32 (a float32 copy, a result and its norm)."""
    config, size = checkpoint.config, dtype.itemsize
    hidden = checkpoint.hidden_size
    heads = int(config["num_attention_heads"])
    head_size = int(config.get("head_dim") or hidden // heads)
    queries, keys = heads * head_size, int(config.get("num_key_value_heads") or heads) * head_size
    inner = int(config["intermediate_size"])
    # Held by whoever called the layer: the embeddings, its input; of decoders what is added to it, and the two tables of rotations.
    held = 4 * hidden + 2 * head_size if checkpoint.is_causal else 3 * hidden
    # Queries, keys and values, of which rotation makes two anew; what was attended.
    attention = held + 3 * queries + 3 * keys
    # A gated block has what is gated, the other half and their product; a plain one what goes into the activation and comes out.
    feed_forward = held + (3 if checkpoint.is_causal else 2) * inner
    heads_bytes = hidden * size + 3 * hidden * FLOAT32_BYTES
    return max(attention * size, feed_forward * size, heads_bytes)


def weights_bytes(checkpoint: Checkpoint, dtype: torch.dtype) -> int:
    """As they are loaded. Of a `.bin`, which does not say what is in it without being read, at least its own size."""
    return sum(_weights_bytes(file, dtype.itemsize) for file in checkpoint.weight_files)


def _weights_bytes(file: Path, size: int) -> int:
    if file.suffix != ".safetensors":
        return file.stat().st_size
    with file.open("rb") as opened:
        header: dict[str, dict[str, list[int]]] = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return sum(size * prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
