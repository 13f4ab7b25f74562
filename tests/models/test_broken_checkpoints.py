"""A broken folder is refused at load, naming the file and the tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bgeserve.errors import CheckpointError
from bgeserve.models.reranker import load_reranker
from bgeserve.settings import RerankerSettings
from tests import checkpoints
from tests.models.folders import DECODER_EMBEDDERS, Folders
from tests.models.loaded import Reranker
from tests.models.loaded import embedder as load
from tests.models.test_checkpoint import edit

Break = Callable[[Path], None]


@pytest.fixture
def m3_copy(bge_m3: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bge_m3, tmp_path / "bge-m3"))


def remove(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def overwrite(name: str, content: bytes) -> Break:
    return lambda folder: void((folder / name).write_bytes(content))


def void(_: object) -> None:
    pass


def halve(name: str) -> Break:
    return lambda folder: overwrite(name, (folder / name).read_bytes()[:100_000])(folder)


def lose_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    weight_map = {"x": "a.safetensors", "y": "b.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def change_tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Break:
    def broken(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        changed = change(tensors.pop(name))
        save_file(tensors if changed is None else {**tensors, name: changed}, folder / "model.safetensors", {"format": "pt"})

    return broken


def resize_head(name: str, out_features: int, in_features: int) -> Break:
    state = {"weight": torch.zeros(out_features, in_features), "bias": torch.zeros(out_features)}
    return lambda folder: torch.save(state, folder / name)


def change_config(name: str, **changes: Any) -> Break:
    return lambda folder: edit(folder / name, **changes)


class Pickled:
    """Not a tensor: loading it needs the code that a hostile file would bring."""


QUERY_WEIGHT = "encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (remove("config.json"), r"config\.json is missing"),
        (overwrite("config.json", b'{"model_type": "xlm-'), r"config\.json cannot be read"),
        (overwrite("config.json", b"[]"), r"config\.json holds a JSON list; expected a dict"),
        (change_config("config.json", hidden_size=None), r"config\.json lacks \['hidden_size'\]"),
        (remove("model.safetensors"), r"has no weights"),
        (halve("model.safetensors"), r"model\.safetensors is not whole"),
        (overwrite("model.safetensors", b""), r"model\.safetensors is not whole"),
        (lose_a_shard, r"b\.safetensors is missing"),
        (change_tensor(QUERY_WEIGHT, lambda t: t[:32].clone()), rf"tensor {QUERY_WEIGHT} is \(32, 64\); config\.json says \(64, 64\)"),
        (change_tensor(QUERY_WEIGHT, lambda _: None), rf"lack 1 tensors of XLMRobertaModel: {QUERY_WEIGHT}$"),
        (remove("sparse_linear.pt"), r"sparse_linear\.pt is missing"),
        (remove("colbert_linear.pt"), r"colbert_linear\.pt is missing"),
        (resize_head("sparse_linear.pt", 1, 32), r"sparse_linear\.pt.*\(1, 32\).*expected \(1, 64\)"),
        (resize_head("sparse_linear.pt", 2, 64), r"sparse_linear\.pt.*\(2, 64\).*expected \(1, 64\)"),
        (resize_head("colbert_linear.pt", 64, 128), r"colbert_linear\.pt.*\(64, 128\).*expected \(64, 64\)"),
        (overwrite("sparse_linear.pt", b"not a torch file"), r"sparse_linear\.pt does not hold a linear layer"),
        (lambda folder: torch.save(Pickled(), folder / "sparse_linear.pt"), r"sparse_linear\.pt does not hold a linear layer"),
        (change_config("config.json", model_type="llama"), r"model_type is 'llama'; known here: bert, xlm-roberta"),
        (change_config("config.json", position_embedding_type="relative_key"), r"position_embedding_type is 'relative_key'"),
        (change_config("config.json", vocab_size=100), r"its tokenizer has 354 tokens, its config\.json a vocab_size of 100"),
        (change_config("1_Pooling/config.json", pooling_mode_mean_tokens=True), r"1_Pooling/config\.json: pooling is \['cls', 'mean'\]"),
        (remove("1_Pooling/config.json"), r"1_Pooling/config\.json is missing"),
        (overwrite("modules.json", b'[{"type": "sentence_transformers.models.Dense", "path": "2"}]'), r"module 'Dense' is not known"),
        (overwrite("tokenizer.json", b"{"), r"its tokenizer cannot be loaded"),
    ],
)
def test_a_broken_embedder_is_refused_by_name(m3_copy: Path, break_it: Break, message: str) -> None:
    load(m3_copy)
    break_it(m3_copy)
    with pytest.raises(CheckpointError, match=message):
        load(m3_copy)


def test_a_folder_that_does_not_say_how_to_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not say how to pool"):
        load(checkpoints.make_bert(tmp_path / "unknown", pooling=None))


def test_an_encoder_is_no_cross_encoder(bert: Path) -> None:
    with pytest.raises(CheckpointError, match=r"lack 2 tensors of BertForSequenceClassification: classifier\.bias, classifier\.weight"):
        load_reranker(RerankerSettings(model=str(bert)))


def test_a_classifier_of_several_labels_is_no_reranker(tmp_path: Path, reranker: Path) -> None:
    folder = shutil.copytree(reranker, tmp_path / "classifier")
    edit(folder / "config.json", id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1})
    with pytest.raises(CheckpointError, match=r"tensor classifier\.out_proj\.bias is \(1,\); config\.json says \(2,\)"):
        load_reranker(RerankerSettings(model=str(folder)))


# --- decoders ---------------------------------------------------------------------------------------------------------------


def lose_tensor(name: str) -> Break:
    return change_tensor(name, lambda _: None)


LAYERED_BREAKS: list[tuple[str, Break, str]] = [
    ("layerwise", lose_tensor("lm_head.2.linear_head.weight"), r"lack 1 tensors of GraniteLayerScorer: lm_head\.2\.linear_head\.weight$"),
    ("lightweight", lose_tensor("lm_head.4.linear_head.weight"), r"lack 1 tensors of Gemma2LayerScorer: lm_head\.4\.linear_head\.weight$"),
    ("layerwise", lose_tensor("model.layers.3.mlp.up_proj.weight"), r"lack 1 tensors .*: model\.layers\.3\.mlp\.up_proj\.weight$"),
    ("layerwise", change_tensor("lm_head.0.linear_head.weight", lambda t: t[:, :24].clone()),
     r"tensor lm_head\.0\.linear_head\.weight is \(1, 24\); config\.json says \(1, 48\)"),
    ("layerwise", halve("model.safetensors"), r"model\.safetensors is not whole"),
    ("layerwise", change_config("config.json", head_type="complex"), r"config\.json: head_type is 'complex'; only 'simple' is known"),
    ("lightweight", change_config("config.json", layer_wise=False), r"config\.json: layer_wise is False; only True is known"),
    ("layerwise", change_config("config.json", rope_scaling={"type": "linear", "factor": 2.0}), r"config\.json: rope_scaling is \{'type'"),
    ("lightweight", change_config("config.json", rope_scaling={"type": "dynamic"}), r"config\.json: rope_scaling is \{'type': 'dynamic'\}"),
    ("layerwise", change_config("config.json", start_layer=1), r"lack 1 tensors of GraniteLayerScorer: lm_head\.5"),
]  # fmt: skip


@pytest.mark.parametrize(("fixture", "break_it", "message"), LAYERED_BREAKS, ids=[message for *_, message in LAYERED_BREAKS])
def test_a_broken_layered_reranker_is_refused_by_name(
    fixture: str, break_it: Break, message: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(request.getfixturevalue(fixture), tmp_path / "copy"))
    break_it(folder)
    with pytest.raises(CheckpointError, match=message):
        Reranker(folder)


@pytest.mark.parametrize("name", DECODER_EMBEDDERS)
def test_a_decoder_with_half_a_weight_file_is_refused_by_its_name(name: str, folders: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders[name], tmp_path / name))
    (file, *_) = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])[-1:]
    halve(file.name)(folder)
    with pytest.raises(CheckpointError, match=f"{name}.*(is not whole|cannot be loaded)"):
        load(folder)


def test_a_missing_shard_is_refused_by_its_name(folders: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["bge-multilingual-gemma2"], tmp_path / "sharded"))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing: the index of the weights names it"):
        load(folder)


def test_an_llm_reranker_without_its_last_norm_is_refused_by_name(llm_reranker: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llm_reranker, tmp_path / "copy"))
    lose_tensor("model.norm.weight")(folder)
    with pytest.raises(CheckpointError, match=r"lack 1 tensors of GemmaForCausalLM: model\.norm\.weight$"):
        Reranker(folder)


def test_weights_that_need_code_to_load_are_refused(folders: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["bge-en-icl"], tmp_path / "hostile"))
    torch.save(Pickled(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="its weights cannot be loaded"):
        load(folder)
