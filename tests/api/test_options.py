"""What a request asks of a model reaches the model, and changes its answer; nothing is sent where nothing was asked."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from bgeserve.types import EmbedderOptions, Example, RerankerOptions
from tests.api.backend import Stage, dense_of
from tests.api.test_answers import DOCUMENTS, ask

EXAMPLES = [{"query": "open a zip", "response": "zipfile"}, {"query": "hash", "response": "hashlib", "instruction": "find"}]


async def test_an_instruction_is_put_before_queries(http: httpx.AsyncClient, stage: Stage) -> None:
    body = {"input": ["read files"], "input_type": "query", "instruction": "find code that can"}
    (item,) = (await ask(http, "POST", "/v1/encode", body))["data"]
    np.testing.assert_array_equal(np.float32(item["dense"]), dense_of("find code that can read files"))
    assert stage.embedding.options == [EmbedderOptions(instruction="find code that can")]


@pytest.mark.parametrize("instruction", ["", "find"])
async def test_examples_reach_the_model_which_may_refuse_them(http: httpx.AsyncClient, stage: Stage, instruction: str) -> None:
    body = {"input": "a", "input_type": "query", "instruction": instruction, "examples": EXAMPLES}
    response = await http.post("/v1/encode", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "examples")
    assert "its options are: instruction" in response.json()["error"]["message"]
    shown = [Example("open a zip", "zipfile"), Example("hash", "hashlib", "find")]
    assert stage.embedding.options == [EmbedderOptions(instruction, shown)]


@pytest.mark.parametrize("asked", [{}, {"input_type": "query"}, {"instruction": None, "examples": None}])
async def test_nothing_asked_is_nothing_sent(http: httpx.AsyncClient, stage: Stage, asked: dict[str, Any]) -> None:
    await ask(http, "POST", "/v1/encode", {"input": "a", **asked})
    await ask(http, "POST", "/v1/rerank", {"query": "a", "documents": ["b"]})
    assert stage.embedding.options == stage.reranking.options == [None]


@pytest.mark.parametrize(("sent", "layers"), [(8, (8,)), ([8], (8,)), ([8, 20, 40], (8, 20, 40))])
async def test_the_score_of_each_of_several_cutoff_layers(
    http: httpx.AsyncClient, stage: Stage, sent: Any, layers: tuple[int, ...]
) -> None:
    body = {"query": "parse line", "documents": ["a line", "parse line"], "cutoff_layers": sent, "return_documents": False}
    best, other = (await ask(http, "POST", "/v1/rerank", body))["results"]
    assert stage.reranking.options == [RerankerOptions(cutoff_layers=layers)]
    assert (best["index"], best["raw_score"], other["raw_score"]) == (1, layers[-1], layers[-1] / 2)
    if len(layers) == 1:
        assert "parts" not in best
    else:
        assert best["parts"] == {"layer_8": 8, "layer_20": 20, "layer_40": 40}
        assert other["parts"] == {"layer_8": 4, "layer_20": 10, "layer_40": 20}


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({"prompt": "Is B about A?"}, RerankerOptions(prompt="Is B about A?")),
        ({"compress_layers": [8, 16]}, RerankerOptions(compress_layers=(8, 16))),
        ({"compress_layers": []}, RerankerOptions(compress_layers=())),
        ({"compress_ratio": 2}, RerankerOptions(compress_ratio=2)),
        ({"weights": {"dense": 1, "sparse": 0.3}}, RerankerOptions(weights={"dense": 1, "sparse": 0.3})),
    ],
)
async def test_what_a_reranker_does_not_take_it_refuses_by_name(
    http: httpx.AsyncClient, stage: Stage, asked: dict[str, Any], options: RerankerOptions
) -> None:
    response = await http.post("/v1/rerank", json={"query": "a", "documents": ["b"], **asked})
    assert stage.reranking.options == [options]
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_request", next(iter(asked)))
    assert "its options are: instruction, cutoff_layers" in error["message"]


async def test_a_layer_that_the_model_lacks_is_refused_by_the_model(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/rerank", json={"query": "a", "documents": ["b"], "cutoff_layers": [8, 41]})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "cutoff_layers")
    assert "from 8 to 40, not 41" in response.json()["error"]["message"]


async def test_a_search_has_an_instruction_for_its_queries(http: httpx.AsyncClient, stage: Stage) -> None:
    await ask(http, "PUT", "/v1/collections/default/documents", {"documents": DOCUMENTS})
    await ask(http, "POST", "/v1/search", {"query": ["shell", "files"], "instruction": "a command for", "rerank": True})
    await ask(http, "POST", "/v1/search", {"query": "shell"})
    assert stage.embedding.options == [None, EmbedderOptions(instruction="a command for"), None]
    assert set(stage.reranking.options) == {None}
