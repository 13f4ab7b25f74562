"""LoRA adapters: a folder of one serves by its path, and its numbers are those of peft's own merged model, padded."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import normalize
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from bgeserve.errors import CheckpointError
from bgeserve.models.layer_scorer import scorer_class
from bgeserve.types import RerankerOptions
from tests.checkpoints import TEXTS
from tests.models.folders import LAYERED, MINILM, Folders
from tests.models.loaded import Reranker, all_numbers, dense, embedder
from tests.models.parity.case import LOGIT_TOLERANCE, VECTOR_TOLERANCE

ENCODER_TARGETS = ["query", "value", "dense"]
DECODER_TARGETS = ["q_proj", "v_proj", "down_proj"]


def make_adapter(base: Path, out: Path, kind: Any, targets: Sequence[str], task: str) -> Path:
    """One whose matrices are all random, so that it changes the model."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        model: Any = get_peft_model(
            kind.from_pretrained(base),
            LoraConfig(r=4, lora_alpha=8, target_modules=list(targets), init_lora_weights=False, task_type=task),
        )
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(out)
    return out


def merged(base: Path, adapter: Path, kind: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(kind.from_pretrained(base), str(adapter)).merge_and_unload().eval()


def padded(ids: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    longest = max(map(len, ids))
    rows = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in ids])
    return {"input_ids": rows, "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])}


@pytest.fixture(scope="module")
def bert_adapter(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(bert, tmp_path_factory.mktemp("adapter") / "tuned-bert", AutoModel, ENCODER_TARGETS, "FEATURE_EXTRACTION")


@torch.inference_mode()
def test_an_embedders_adapter(bert: Path, bert_adapter: Path) -> None:
    ours = embedder(bert_adapter)
    assert (ours.info.family, ours.info.pooling) == ("bert", "cls")
    ids = [sequence.ids.tolist() for sequence in ours.tokenize(TEXTS)]
    hidden = merged(bert, bert_adapter, AutoModel)(**padded(ids, 0)).last_hidden_state
    np.testing.assert_allclose(dense(ours, TEXTS), normalize(hidden[:, 0], dim=-1), rtol=0, atol=VECTOR_TOLERANCE)
    assert np.abs(dense(ours, TEXTS) - dense(embedder(bert), TEXTS)).max() > 0.1


@torch.inference_mode()
def test_a_cross_encoders_adapter(reranker: Path, tmp_path: Path) -> None:
    adapter = make_adapter(reranker, tmp_path / "tuned", AutoModelForSequenceClassification, ["query", "value"], "SEQ_CLS")
    ours = Reranker(adapter)
    items = ours.items(TEXTS[0], TEXTS)
    logits = merged(reranker, adapter, AutoModelForSequenceClassification)(**padded([item.ids.tolist() for item in items], 1)).logits
    assert ours.scores(items) == pytest.approx(logits.flatten().tolist(), abs=LOGIT_TOLERANCE)
    assert ours.scores(items) != pytest.approx(Reranker(reranker).scores(items), abs=0.1)


@torch.inference_mode()
def test_an_llm_rerankers_adapter(llm_reranker: Path, tmp_path: Path) -> None:
    adapter = make_adapter(llm_reranker, tmp_path / "tuned", AutoModelForCausalLM, DECODER_TARGETS, "CAUSAL_LM")
    ours = Reranker(adapter)
    assert ours.scorer.info.kind == "llm"
    items = ours.items(TEXTS[0], TEXTS)
    (yes, *_), *_ = ours.scorer._prompter._tokenizer.body_ids(["Yes"], 9, "answer")  # type: ignore[attr-defined]
    model = merged(llm_reranker, adapter, AutoModelForCausalLM)
    logits = model(**padded([item.sequence.ids.tolist() for item in items], 0)).logits
    expected = [float(rows[item.cost - 1, yes]) for rows, item in zip(logits, items, strict=True)]
    assert ours.scores(items) == pytest.approx(expected, abs=LOGIT_TOLERANCE)
    assert ours.scores(items) != pytest.approx(Reranker(llm_reranker).scores(items), abs=0.1)


def test_an_adapter_counts_in_the_fingerprint(bert: Path, bert_adapter: Path, tmp_path: Path) -> None:
    other = make_adapter(bert, tmp_path / "other", AutoModel, ["query"], "FEATURE_EXTRACTION")
    assert len({embedder(folder).info.fingerprint for folder in (bert, bert_adapter, other)}) == 3


def copy_adapter(adapter: Path, tmp_path: Path, **config: Any) -> Path:
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    stated = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps({**stated, **config}))
    return copy


def test_an_adapter_of_another_model_is_refused(bert_adapter: Path, llm_reranker: Path, folders: Folders, tmp_path: Path) -> None:
    for base in (llm_reranker, folders[MINILM]):  # other names; other sizes
        copy = copy_adapter(bert_adapter, tmp_path / base.name, base_model_name_or_path=str(base))
        with pytest.raises(CheckpointError, match=rf"{copy}: this adapter does not fit"):
            embedder(copy)


def test_an_adapter_that_lacks_weights_is_refused(bert_adapter: Path, tmp_path: Path) -> None:
    more = copy_adapter(bert_adapter, tmp_path / "more", target_modules=["query", "key", "value", "dense"])
    with pytest.raises(CheckpointError, match=rf"{more}: this adapter does not fit BertModel: .*missing adapter keys"):
        embedder(more)
    empty = copy_adapter(bert_adapter, tmp_path / "empty")
    (empty / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=f"{empty}"):
        embedder(empty)


def test_an_adapter_that_is_cut_off_is_refused(bert_adapter: Path, tmp_path: Path) -> None:
    copy = copy_adapter(bert_adapter, tmp_path)
    file = copy / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=f"{copy}"):
        embedder(copy)


def test_a_base_that_is_nowhere_is_named(bert_adapter: Path, tmp_path: Path) -> None:
    copy = copy_adapter(bert_adapter, tmp_path, base_model_name_or_path="/no/such/base")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: its base '/no/such/base' cannot be had"):
        embedder(copy)
    none = copy_adapter(bert_adapter, tmp_path / "none", base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match=r"adapter_config\.json lacks base_model_name_or_path"):
        embedder(none)


@pytest.mark.parametrize("name", LAYERED)
def test_a_layered_rerankers_adapter(name: str, folders: Folders, tmp_path: Path) -> None:
    """Merging it is adding alpha / r times its two matrices' product to each weight: written here into a full checkpoint."""
    base = folders[name]
    class_, config = scorer_class(base, json.loads((base / "config.json").read_text()))

    class Loaded:
        @staticmethod
        def from_pretrained(folder: Path) -> Any:
            return class_.from_pretrained(folder, config=config)

    adapter = make_adapter(base, tmp_path / "adapter", Loaded, DECODER_TARGETS, "FEATURE_EXTRACTION")
    full = Path(shutil.copytree(base, tmp_path / "full"))
    tensors, parts = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    for key in [key for key in parts if key.endswith("lora_A.weight")]:
        weight = key.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
        tensors[weight] += 2 * parts[key.replace("lora_A", "lora_B")] @ parts[key]
    save_file(tensors, full / "model.safetensors", {"format": "pt"})
    options = RerankerOptions(cutoff_layers=[2, 6])
    expected, ours, untuned = (
        all_numbers(model.forward(model.items(TEXTS[0], TEXTS, options))) for model in map(Reranker, (full, adapter, base))
    )
    assert ours == pytest.approx(expected, abs=LOGIT_TOLERANCE)
    assert ours != pytest.approx(untuned, abs=0.1)
