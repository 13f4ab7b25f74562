"""The ingress without a cluster: its handles stand for pieces of this process, its controller is scripted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from ray import serve

from bgeserve.settings import EmbedderSettings, IngressSettings, RerankerSettings
from bgeserve.types import RerankerOptions
from deployments.ingress import Model, _Ingress  # pyright: ignore[reportPrivateUsage]
from tests.api.backend import HashingEmbedder, OverlapReranker, Switch
from tests.api.test_model_server import PAIRS, SCORES, plain
from tests.deployments.fakes import PieceHandle
from tests.deployments.test_states import overview, scripted

RERANKER = "reranker-overlap"


@pytest.fixture
def reranking() -> Switch:
    return Switch()


@pytest.fixture
def asked() -> list[int]:
    """How often the controller was."""
    return []


@pytest.fixture
def ingress(monkeypatch: pytest.MonkeyPatch, reranking: Switch, asked: list[int]) -> Iterator[_Ingress]:
    states = {"embedder-hashing": overview("UPDATING", STARTING=2), RERANKER: overview("HEALTHY", RUNNING=1)}
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(app_name="app", deployment="ingress", replica_tag="r"))
    monkeypatch.setattr(serve, "status", scripted(states, asked))
    monkeypatch.delenv("BGE_SERVE_API_KEY", raising=False)
    embedder = Model(PieceHandle("embedder-hashing", HashingEmbedder(Switch())), EmbedderSettings(model="org/hashed-words"))
    reranker = Model(PieceHandle(RERANKER, OverlapReranker(reranking)), RerankerSettings(model="org/word-overlap"))
    logger = logging.getLogger("bgeserve")
    before = list(logger.handlers)
    yield _Ingress(IngressSettings(), {"hashing": embedder}, {"overlap": reranker})
    logger.handlers[:] = before


def calls(ingress: _Ingress) -> list[str]:
    models = ingress._service._models  # pyright: ignore[reportPrivateUsage]
    return [call for model in models.values() for call in model.handle.calls]


async def test_statuses_come_from_the_controller_and_ask_no_model(ingress: _Ingress, asked: list[int]) -> None:
    embedder, reranker = await ingress.model_statuses()
    assert (embedder.name, embedder.role, embedder.model, embedder.protocol) == ("hashing", "embedder", "org/hashed-words", "retriever")
    assert (embedder.available, embedder.replicas) == (False, {"STARTING": 2})
    assert (reranker.available, reranker.replicas, reranker.protocol) == (True, {"RUNNING": 1}, "reranker")
    assert (await ingress.support_methods({"model": "hashing"}))["state"] == "ok"
    assert (calls(ingress), len(asked)) == ([], 1)


async def test_what_a_model_is_asks_that_model_alone(ingress: _Ingress) -> None:
    assert (await ingress.info({"model": "overlap"}))["msg"]["layerwise"] == (8, 40)
    assert calls(ingress) == [f"{RERANKER}.info"]
    assert [(model.name, model.replicas) for model in await ingress.models()] == [("hashing", 0), ("overlap", 1)]


async def test_options_reach_the_replica(ingress: _Ingress, reranking: Switch) -> None:
    scores = await ingress.rerank("parse line", ["a line"], options=RerankerOptions(cutoff_layers=(8, 40)))
    assert {name: raw.tolist() for name, raw in scores.parts.items()} == {"layer_8": [4], "layer_40": [20]}
    assert reranking.options == [RerankerOptions(cutoff_layers=(8, 40))]


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("support_methods", {"model": "overlap"}),
        ("info", {"model": "overlap"}),
        ("info", {"model": "bge"}),
        ("inference", {"model": "overlap", "sentence_pairs": PAIRS}),
        ("inference", {"model": "hashing", "sentences": ["read files"], "options": {"return_sparse": True}}),
        ("inference", {"model": "overlap", "sentence_pairs": PAIRS, "options": {"cutoff_layers": 5}}),
    ],
)
async def test_the_handle_and_http_answer_the_same(ingress: _Ingress, method: str, request_: dict[str, Any]) -> None:
    over_the_handle = await getattr(ingress, method)(request_)
    transport = httpx.ASGITransport(ingress.__serve_build_asgi_app__())
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        over_http = (await http.post(f"/{method}", json=request_)).json()
    assert plain(over_the_handle) == plain(over_http)


async def test_the_example_of_the_system_that_this_one_descends_from(ingress: _Ingress) -> None:
    scored = await ingress.inference({"model": "overlap", "sentence_pairs": PAIRS})
    assert (scored["state"], scored["msg"]["vecs"]["scores"].tolist()) == ("ok", SCORES)
