"""One service of an M3, an encoder reranker, an LLM reranker that is cut at its layers and one that compresses too, as a client sees it."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bgeserve import Client
from bgeserve.types import Document
from tests import checkpoints, decoder_checkpoints
from tests.ray.processes import START_S, Up, search_service

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]

QUERY = "how do I parse arguments"
PASSAGES = list(checkpoints.TEXTS[:6])
ASK_OVER_A_HANDLE = """
import asyncio, json, sys
from ray import serve

async def ask():
    return await serve.get_app_handle("search").inference.remote(json.loads(sys.argv[1]))

print(json.dumps(asyncio.run(ask())["msg"]["vecs"]["scores"].tolist()))
"""


@pytest.fixture(scope="module")
def every_family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("families")
    each = {"cpus": 0.3, "workers": 1}
    models = {
        "m3": {"model": str(checkpoints.make_bge_m3(folder / "bge-m3")), **each},
        "encoder": {"model": str(checkpoints.make_reranker(folder / "bge-reranker-v2-m3")), **each},
        "layerwise": {"model": str(decoder_checkpoints.make_minicpm_layerwise(folder / "layerwise")), "cutoff_layers": [4], **each},
        "lightweight": {"model": str(decoder_checkpoints.make_gemma2_lightweight(folder / "lightweight")), **each},
    }
    search = {"legs": ["dense", "sparse", "multi_vector"], "reranker": "layerwise"}
    with search_service(folder, embedders={"m3": models.pop("m3")}, rerankers=models, search=search) as started:
        yield started


def rerank(service: Up, model: str, **options: Any) -> httpx.Response:
    body = {"model": model, "query": QUERY, "documents": PASSAGES, **options}
    return httpx.post(f"{service.url}/v1/rerank", json=body, timeout=60)


def raw_scores(service: Up, model: str, **options: Any) -> list[float]:
    results = rerank(service, model, **options).json()["results"]
    return [result["raw_score"] for result in sorted(results, key=lambda result: result["index"])]


def test_each_answers_with_its_own_options(every_family: Up) -> None:
    encoded = httpx.post(f"{every_family.url}/v1/encode", json={"input": PASSAGES, "outputs": ["dense", "sparse", "multi_vector"]}).json()
    assert all({"dense", "sparse", "multi_vector"} <= item.keys() for item in encoded["data"])
    assert len(set(raw_scores(every_family, "encoder"))) == len(PASSAGES)
    at_4 = raw_scores(every_family, "layerwise")
    assert at_4 == pytest.approx(raw_scores(every_family, "layerwise", cutoff_layers=[4]), abs=1e-4)
    assert at_4 != pytest.approx(raw_scores(every_family, "layerwise", cutoff_layers=6), abs=0.1)
    assert raw_scores(every_family, "layerwise", prompt="Is B about A?") != pytest.approx(at_4, abs=0.1)
    whole = raw_scores(every_family, "lightweight", cutoff_layers=[5])
    compressed = raw_scores(every_family, "lightweight", cutoff_layers=[5], compress_layers=[3], compress_ratio=2)
    assert compressed != pytest.approx(whole, abs=0.05)


def test_several_layers_come_as_parts(every_family: Up) -> None:
    for result in rerank(every_family, "lightweight", cutoff_layers=[3, 6]).json()["results"]:
        assert result["parts"].keys() == {"layer_3", "layer_6"}
        assert result["raw_score"] == result["parts"]["layer_6"]


@pytest.mark.parametrize(
    ("model", "options", "named"),
    [
        ("encoder", {"cutoff_layers": [3]}, r"cutoff_layers is \[3\], but .*cross_encoder.* takes no options"),
        ("layerwise", {"cutoff_layers": [7]}, r"cutoff_layers has \[7\]; .* can be cut at layers 2 to 6"),
        ("lightweight", {"compress_ratio": 3}, r"compress_ratio must be one of \(1, 2, 4, 8\)"),
        ("layerwise", {"compress_ratio": 2}, "takes instruction, prompt, cutoff_layers"),
        ("encoder", {"instruction": "Find: "}, "takes no options"),
    ],
)
def test_a_wrong_option_is_refused_with_what_the_model_takes(every_family: Up, model: str, options: dict[str, Any], named: str) -> None:
    answer = rerank(every_family, model, **options)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == next(iter(options))
    assert re.search(named, error["message"]), error["message"]


def test_the_three_methods_of_baais_model_servers(every_family: Up) -> None:
    """Wait for the reranker, list it, ask what it answers and what it is, score two pairs: over HTTP, and over a handle."""
    waited = subprocess.run(
        [Path(sys.executable).parent / "bge-serve", "status", "--wait", "layerwise", "--url", every_family.url],
        capture_output=True, text=True, timeout=START_S, check=False,
    )  # fmt: skip
    assert waited.returncode == 0, waited.stderr
    assert "reranker" in waited.stdout

    def post(method: str, body: dict[str, Any]) -> dict[str, Any]:
        return httpx.post(f"{every_family.url}/{method}", json=body, timeout=60).json()

    assert post("support_methods", {"model": "layerwise"})["msg"]["support_methods"] == ["inference", "info", "support_methods"]
    info = post("info", {"model": "layerwise"})
    assert info["state"] == "ok"
    assert info["msg"]["type"] == "layerwise"
    assert info["msg"]["layerwise"] == [2, 6]
    pairs = [[QUERY, PASSAGES[0]], [QUERY, PASSAGES[1]]]
    options = {"normalize": True, "cutoff_layers": [6]}
    scored = post("inference", {"model": "layerwise", "sentence_pairs": pairs, "options": options})["msg"]["vecs"]["scores"]
    raw = raw_scores(every_family, "layerwise", cutoff_layers=[6])[:2]
    assert scored == pytest.approx([1 / (1 + math.exp(-score)) for score in raw], abs=1e-4)
    assert post("inference", {"model": "nobody", "sentence_pairs": pairs})["state"] == "error"

    body = json.dumps({"model": "layerwise", "sentence_pairs": pairs, "options": options})
    over_handle = subprocess.run(
        [sys.executable, "-c", ASK_OVER_A_HANDLE, body], cwd=ROOT, env=every_family.handle_environment(),
        capture_output=True, text=True, timeout=START_S, check=False,
    )  # fmt: skip
    assert over_handle.returncode == 0, over_handle.stderr
    assert json.loads(over_handle.stdout.splitlines()[-1]) == pytest.approx(scored, abs=1e-4)


@pytest.fixture(scope="module")
def stored(every_family: Up) -> Up:
    with Client(every_family.url) as client:
        client.put_documents([Document(str(i), text) for i, text in enumerate(PASSAGES)])
    return every_family


def test_a_search_reranks_at_the_settings_layer(stored: Up) -> None:
    with Client(stored.url) as client:
        found = client.search(QUERY, top_k=len(PASSAGES))
    by_layer_4 = [1 / (1 + math.exp(-score)) for score in raw_scores(stored, "layerwise")]
    assert [hit.scores["rerank"] for hit in found] == pytest.approx([by_layer_4[int(hit.id)] for hit in found], abs=1e-3)


def test_the_multi_vector_leg_is_max_sim_of_what_the_embedder_answers(stored: Up) -> None:
    with Client(stored.url) as client:
        found = client.search(QUERY, mode="multi_vector", top_k=len(PASSAGES), rerank=False)
        query = client.encode([QUERY], outputs=["multi_vector"], input_type="query").multi_vector
        passages = client.encode(PASSAGES, outputs=["multi_vector"]).multi_vector
    assert query is not None
    assert passages is not None
    scores = [float((query[0] @ rows.T).max(axis=1).mean()) for rows in passages]
    assert [hit.id for hit in found] == [str(i) for i in sorted(range(len(scores)), key=lambda i: -scores[i])]
    assert [hit.scores["multi_vector"] for hit in found] == pytest.approx(sorted(scores, reverse=True), abs=2e-3)


def test_a_collection_moves_with_all_its_vectors(stored: Up, tmp_path: Path) -> None:
    file = str(tmp_path / "moved.parquet")
    for command in (["export", "default", file], ["import", file, "--collection", "moved"]):
        done = subprocess.run(
            [Path(sys.executable).parent / "bge-serve", *command, "--url", stored.url],
            capture_output=True, text=True, timeout=START_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    with Client(stored.url) as client:
        for mode in ("dense", "sparse", "multi_vector"):
            here, there = (client.search(QUERY, mode=mode, collection=name, rerank=False) for name in ("default", "moved"))
            assert [(hit.id, hit.scores) for hit in there] == [(hit.id, pytest.approx(hit.scores, abs=1e-5)) for hit in here]
