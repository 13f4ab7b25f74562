from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.folders import Folders


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As workers run, and far faster for models this small."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def bert(folders: Folders) -> Path:
    return folders["bge-small-en-v1.5"]


@pytest.fixture(scope="session")
def bert_mean(folders: Folders) -> Path:
    return folders["e5-small-v2"]


@pytest.fixture(scope="session")
def bge_m3(folders: Folders) -> Path:
    return folders["bge-m3"]


@pytest.fixture(scope="session")
def reranker(folders: Folders) -> Path:
    return folders["bge-reranker-base"]


@pytest.fixture(scope="session")
def bert_reranker(folders: Folders) -> Path:
    return folders["bert-reranker"]


@pytest.fixture(scope="session")
def layerwise(folders: Folders) -> Path:
    return folders["bge-reranker-v2-minicpm-layerwise"]


@pytest.fixture(scope="session")
def lightweight(folders: Folders) -> Path:
    return folders["bge-reranker-v2.5-gemma2-lightweight"]


@pytest.fixture(scope="session")
def llm_reranker(folders: Folders) -> Path:
    return folders["bge-reranker-v2-gemma"]
