from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import checkpoints


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As workers run, and far faster for models this small."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make_bert(tmp_path_factory.mktemp("bert") / "bge-small-en-v1.5")


@pytest.fixture(scope="session")
def bert_mean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make_bert(tmp_path_factory.mktemp("bert") / "e5-small-v2", pooling="mean", seed=3)


@pytest.fixture(scope="session")
def bge_m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make_bge_m3(tmp_path_factory.mktemp("m3") / "bge-m3")


@pytest.fixture(scope="session")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make_reranker(tmp_path_factory.mktemp("reranker") / "bge-reranker-base")


@pytest.fixture(scope="session")
def bert_reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make_bert_reranker(tmp_path_factory.mktemp("reranker") / "bert-reranker")
