"""The machine under a model: device, dtype and threads."""

from __future__ import annotations

import os
import platform
import sys
import threading
from typing import Literal

import torch

from bgeserve.errors import SettingsError
from bgeserve.settings import ModelSettings

LOWEST_PRIORITY = 19
NICER = 4
"""Than the process that a worker computes for: each step is worth a quarter of the share that it had."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(settings: ModelSettings) -> torch.device:
    """Raises SettingsError when CUDA is asked for and not there: a silent fall back to CPU would be a hundred times slower."""
    device = settings.resolved_device
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"{settings.model}: device is cuda, but torch {torch.__version__} finds no CUDA device here", field="device")
    return torch.device(device)


def choose_dtype(dtype: Literal["auto", "float32", "bfloat16", "float16"], device: torch.device) -> torch.dtype:
    if dtype != "auto":
        return _DTYPES[dtype]
    in_hardware = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else cpu_computes_bfloat16()
    return torch.bfloat16 if in_hardware else torch.float32


def worker_init(settings: ModelSettings) -> None:
    """Run once in each worker thread: several workers share the CPU's cores evenly (torch keeps the number per thread)."""
    torch.set_num_threads(max(1, int(settings.cpus) // settings.resolved_workers))
    if settings.resolved_device == "cpu" and sys.platform == "linux":
        # There every thread has its own: what takes microseconds (an answer, a refusal, a health check) does not queue behind a forward.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(LOWEST_PRIORITY, os.getpriority(os.PRIO_PROCESS, 0) + NICER))


def cpu_computes_bfloat16() -> bool:
    if platform.machine() in ("x86_64", "AMD64"):  # where mkldnn also says yes to CPUs that can only emulate it
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # pyright: ignore[reportPrivateUsage]
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
