from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from bgeserve.models.embedder import load_embedder
from bgeserve.settings import EmbedderSettings
from tests import checkpoints


def fingerprint(folder: Path, **settings: Any) -> str:
    return load_embedder(EmbedderSettings(model=str(folder), **settings)).info.fingerprint


def test_equal_weights_have_one_fingerprint_wherever_they_lie(bge_m3: Path, tmp_path: Path) -> None:
    assert fingerprint(bge_m3) == fingerprint(Path(shutil.copytree(bge_m3, tmp_path / "elsewhere")))


def test_dtypes_that_are_read_out_alike_share_a_fingerprint(bge_m3: Path) -> None:
    assert fingerprint(bge_m3, dtype="float32") == fingerprint(bge_m3, dtype="bfloat16")


def test_one_changed_weight_changes_it(bert: Path, tmp_path: Path) -> None:
    tuned = Path(shutil.copytree(bert, tmp_path / bert.name))
    tensors = load_file(tuned / "model.safetensors")
    tensors["encoder.layer.0.output.dense.bias"][0] += 1e-3
    save_file(tensors, tuned / "model.safetensors", {"format": "pt"})
    assert (tuned / "model.safetensors").stat().st_size == (bert / "model.safetensors").stat().st_size
    assert fingerprint(tuned) != fingerprint(bert)


def test_heads_pooling_and_instructions_count(bge_m3: Path, bert: Path, tmp_path: Path) -> None:
    other_head = Path(shutil.copytree(bge_m3, tmp_path / "m3"))
    torch.save({"weight": torch.ones(1, 64), "bias": torch.zeros(1)}, other_head / "sparse_linear.pt")
    found = {
        fingerprint(bge_m3),
        fingerprint(other_head),
        fingerprint(bert),
        fingerprint(bert, query_instruction=""),
        fingerprint(bert, query_instruction="find: "),
        fingerprint(checkpoints.make_bert(tmp_path / "mean", pooling="mean")),
    }
    assert len(found) == 6
