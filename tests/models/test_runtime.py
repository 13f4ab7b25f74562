from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from bgeserve.errors import SettingsError
from bgeserve.models.embedder import load_embedder
from bgeserve.models.reranker import load_reranker
from bgeserve.models.runtime import choose_dtype, worker_init
from bgeserve.settings import EmbedderSettings, RerankerSettings

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_without_cuda_is_refused_at_load(bert: Path, reranker: Path) -> None:
    with pytest.raises(SettingsError, match=r"device is cuda, but torch .* finds no CUDA device") as refused:
        load_embedder(EmbedderSettings(model=str(bert), device="cuda", gpus=0.5))
    assert refused.value.field == "device"
    with pytest.raises(SettingsError, match="device is cuda"):
        load_reranker(RerankerSettings(model=str(reranker), gpus=1))


def test_dtype() -> None:
    assert choose_dtype("float32", CPU) == torch.float32
    assert choose_dtype("float16", CPU) == torch.float16
    assert choose_dtype("auto", CPU) in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(("cpus", "workers", "threads"), [(1, None, 1), (2, None, 1), (4, 1, 4), (4, 2, 2), (0.5, None, 1)])
def test_workers_share_the_cpus(cpus: float, workers: int | None, threads: int) -> None:
    found: list[int] = []

    def work() -> None:
        worker_init(EmbedderSettings(model="m", cpus=cpus, workers=workers))
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    torch.set_num_threads(1)
    assert found == [threads]
