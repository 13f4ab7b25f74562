"""`bge-serve verify`: what holds is said to hold, and what differs is found, whatever it is compared with."""

from __future__ import annotations

import json
import shutil
from math import inf, nan
from pathlib import Path

import pytest
import torch

from bgeserve.catalog import find_embedder, find_reranker
from bgeserve.cli import main
from bgeserve.models import published
from bgeserve.models.published import PUBLISHED, Published
from bgeserve.models.verification import compare_published, largest_difference, settings_for
from bgeserve.settings import EmbedderSettings, RerankerSettings
from bgeserve.types import OUTPUTS
from tests.models.folders import DECODER_EMBEDDERS, LAYERED, Folders
from tests.models.loaded import Reranker

pytestmark = pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated")


@pytest.mark.parametrize("name", ["bge-m3", "bge-small-en-v1.5", *DECODER_EMBEDDERS, "bge-reranker-base", "bge-reranker-v2-gemma"])
def test_a_model_holds_against_flagembedding(folders: Folders, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folders[name]), "--against", "flagembedding"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed
    assert all(line.endswith("ok") for line in printed)
    if name == "bge-m3":
        assert {line.partition(",")[0] for line in printed} == set(OUTPUTS)


@pytest.mark.parametrize("name", LAYERED)
def test_a_recording_finds_changed_weights(folders: Folders, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    recording = tmp_path / "numbers.json"
    assert main(["verify", str(folders[name]), "--record", str(recording)]) == 0
    assert main(["verify", str(folders[name]), "--against", str(recording)]) == 0
    changed = tmp_path / name
    shutil.copytree(folders[name], changed)
    weights = load_file(changed / "model.safetensors")
    head = next(key for key in weights if key.startswith("lm_head") and key.endswith("weight"))
    weights[head] = weights[head] + 0.1
    save_file(weights, changed / "model.safetensors", {"format": "pt"})
    capsys.readouterr()
    assert main(["verify", str(changed), "--against", str(recording)]) == 1
    assert "every layer" in capsys.readouterr().out


def test_published_numbers_are_what_the_default_compares_with(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folders["bge-reranker-base"]
    model = Reranker(folder)
    pairs = (("what is panda?", "hi"), ("what is panda?", "a bear"))
    right = tuple(model.scores(model.items_of(pairs)))
    normalized = tuple(torch.sigmoid(torch.tensor(right)).tolist())
    for stated, code in ((right, 0), ((right[0], right[1] + 0.2), 1)):
        numbers = (Published(str(folder), pairs, {"score": stated}, 0.01), Published(str(folder), pairs, {"normalized": normalized}, 1e-4))
        monkeypatch.setattr(published, "PUBLISHED", numbers)
        assert main(["verify", str(folder), "--json"]) == code
        answer = json.loads(capsys.readouterr().out)
        assert [one["output"] for one in answer["outputs"]] == ["score", "normalized"]


def test_an_embedders_published_pair_scores(folders: Folders) -> None:
    folder = str(folders["bge-m3"])
    pairs = (("read a file", "files are read"), ("read a file", "今天天气很好"))
    hybrid = Reranker(folder, scoring="hybrid")
    parts = [one.parts for one in hybrid.forward(hybrid.items_of(pairs))]
    stated = {name: tuple(part[name] for part in parts) for name in OUTPUTS}
    settings = EmbedderSettings(model=folder, dtype="float32")
    assert all(one.holds for one in compare_published(settings, [Published(folder, pairs, stated, 1e-5)]))
    off = {**stated, "sparse": tuple(value + 1 for value in stated["sparse"])}
    assert [one.output for one in compare_published(settings, [Published(folder, pairs, off, 1e-5)]) if not one.holds] == ["sparse"]


@pytest.mark.parametrize("one", PUBLISHED, ids=lambda one: f"{one.model.rpartition('/')[2]}-{next(iter(one.scores))}")
def test_published_numbers_belong_to_models_of_the_catalogue(one: Published) -> None:
    outputs = {"score", "normalized"} if find_reranker(one.model) else set(OUTPUTS)
    assert find_embedder(one.model) or find_reranker(one.model)
    assert one.scores.keys() <= outputs
    assert all(len(stated) == len(one.pairs) for stated in one.scores.values())


def test_the_panda_pair() -> None:
    (panda,) = [one for one in PUBLISHED if one.model == "BAAI/bge-reranker-v2-m3" and "normalized" in one.scores]
    assert panda.scores["normalized"] == pytest.approx((0.00027803, 0.99484038), abs=1e-8)


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        (1.0, 1.5, 0.5),
        ([1.0, 2.0], [1.0, 2.25], 0.25),
        ([[1.0], [2.0, 3.0]], [[1.0], [2.0, 3.5]], 0.5),
        ([1.0], [1.0, 2.0], inf),
        ({"5": 0.5}, {"7": 0.25}, 0.5),
        (None, [1.0], inf),
        ([], [], 0.0),
        ([0.0, nan], [0.0, 1.0], inf),
    ],
)
def test_the_largest_difference(ours: object, theirs: object, difference: float) -> None:
    assert largest_difference(ours, theirs) == difference


def test_the_role_comes_from_the_row_or_from_the_files(folders: Folders, tmp_path: Path) -> None:
    renamed = tmp_path / "mine"
    for name, kind in (("bge-reranker-v2-gemma", RerankerSettings), ("bge-code-v1", EmbedderSettings)):
        shutil.copytree(folders[name], renamed, dirs_exist_ok=True)
        assert isinstance(settings_for(str(folders[name])), kind)
        assert isinstance(settings_for(str(renamed)), kind)
        shutil.rmtree(renamed)


@pytest.mark.parametrize("against", ["nowhere.json", __file__])
def test_what_cannot_be_compared_with_is_refused(folders: Folders, against: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folders["bge-small-en-v1.5"]), "--against", against]) == 1
    assert "not a file that was recorded" in capsys.readouterr().err


def test_a_model_without_published_numbers_says_so(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folders["bge-small-en-v1.5"]), "--against", "published"]) == 1
    assert "there are no published numbers" in capsys.readouterr().err
