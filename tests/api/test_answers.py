"""What each route answers, and that every answer is what /openapi.json says."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest

from bgeserve.errors import Unavailable
from bgeserve.model_load import ModelLoad
from bgeserve.protocols import Readiness
from bgeserve.types import Lane, ModelStatus
from tests.api.backend import DIMENSIONS, FINGERPRINT, LAYERS, MAX_TOKENS, Stage, dense_of, sparse_of

DOCUMENTS = [
    {
        "id": "gzip",
        "title": "",
        "text": "read and write compressed files",
        "metadata": {"module": "gzip", "lines": 300, "tags": ["files", "archive"]},
    },
    {"id": "argparse", "title": "", "text": "parse command line arguments", "metadata": {"module": "argparse", "lines": 900}},
    {"id": "shlex", "title": "", "text": "split a command like the shell", "metadata": {"module": "shlex", "lines": 40, "old": True}},
]
LONG = "word " * (MAX_TOKENS + 1)


async def ask(http: httpx.AsyncClient, method: str, path: str, body: object = None, **options: Any) -> Any:
    """The answer of a request that is granted, after a check against the service's own description of it."""
    response = await http.request(method, path, json=body, **options)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    description = (await http.get("/openapi.json")).json()
    template = next(t for t in description["paths"] if _matches(t, path))
    content = description["paths"][template][method.lower()]["responses"]["200"]["content"]
    jsonschema.validate(response.json(), {**content["application/json"]["schema"], "components": description["components"]})
    return response.json()


def _matches(template: str, path: str) -> bool:
    parts, sent = template.split("/"), path.split("?")[0].split("/")
    return len(parts) == len(sent) and all(part == own or part.startswith("{") for part, own in zip(parts, sent, strict=True))


@pytest.fixture
async def filled(http: httpx.AsyncClient) -> httpx.AsyncClient:
    await ask(http, "PUT", "/v1/collections/default/documents", {"documents": DOCUMENTS})
    return http


async def test_encode_gives_every_output_of_each_text(http: httpx.AsyncClient) -> None:
    texts = ["parse command line", "read files"]
    answer = await ask(http, "POST", "/v1/encode", {"input": texts, "outputs": ["dense", "sparse", "multi_vector"]})
    assert (answer["model"], answer["fingerprint"], answer["truncated"]) == ("hashing", FINGERPRINT, [])
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert [(item["index"], item["tokens"], item["truncated"]) for item in answer["data"]] == [(0, 3, False), (1, 2, False)]
    for text, item in zip(texts, answer["data"], strict=True):
        np.testing.assert_array_equal(np.float32(item["dense"]), dense_of(text))
        np.testing.assert_array_equal(np.uint32(item["sparse"]["indices"]), sparse_of(text).indices)
        np.testing.assert_array_equal(np.float32(item["sparse"]["values"]), sparse_of(text).values)
        np.testing.assert_array_equal(np.float32(item["multi_vector"]), [dense_of(word) for word in text.split()])


async def test_base64_holds_the_same_numbers(http: httpx.AsyncClient) -> None:
    body = {"input": "parse command line", "outputs": ["dense", "sparse", "multi_vector"]}
    numbers = (await ask(http, "POST", "/v1/encode", body))["data"][0]
    encoded = (await ask(http, "POST", "/v1/encode", {**body, "encoding_format": "base64"}))["data"][0]
    np.testing.assert_array_equal(np.frombuffer(b64decode(encoded["dense"]), "<f4"), np.float32(numbers["dense"]))
    np.testing.assert_array_equal(np.frombuffer(b64decode(encoded["sparse"]["indices"]), "<u4"), numbers["sparse"]["indices"])
    rows = np.frombuffer(b64decode(encoded["multi_vector"]["base64"]), "<f4").reshape(encoded["multi_vector"]["shape"])
    np.testing.assert_array_equal(rows, np.float32(numbers["multi_vector"]))


async def test_encode_gives_only_what_was_asked_for(http: httpx.AsyncClient) -> None:
    (item,) = (await ask(http, "POST", "/v1/encode", {"input": "a b"}))["data"]
    assert set(item) == {"index", "tokens", "truncated", "dense"}


@pytest.mark.parametrize(("route", "field"), [("encode", "input"), ("embeddings", "input")])
async def test_what_was_cut_is_said(http: httpx.AsyncClient, route: str, field: str) -> None:
    answer = await ask(http, "POST", f"/v1/{route}", {field: ["short", LONG]})
    assert answer["truncated"] == [1]


async def test_rerank_says_which_passages_were_cut_even_those_that_it_leaves_out(http: httpx.AsyncClient) -> None:
    answer = await ask(http, "POST", "/v1/rerank", {"query": "short", "documents": ["short", LONG], "top_n": 1})
    assert answer["truncated"] == [1]
    assert [result["truncated"] for result in answer["results"]] == [False]


async def test_embeddings_in_openais_shape(http: httpx.AsyncClient) -> None:
    body = {"input": ["read files", "parse"], "model": "hashing", "user": "someone", "dimensions": DIMENSIONS}
    answer = await ask(http, "POST", "/v1/embeddings", body)
    assert answer["object"] == "list"
    assert answer["model"] == "hashing"
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert [(item["object"], item["index"]) for item in answer["data"]] == [("embedding", 0), ("embedding", 1)]
    np.testing.assert_array_equal(np.float32(answer["data"][0]["embedding"]), dense_of("read files"))


async def test_rerank_in_jinas_shape(http: httpx.AsyncClient) -> None:
    documents = ["nothing of it", {"text": "parse the line"}, "parse line"]
    answer = await ask(http, "POST", "/v1/rerank", {"query": "parse line", "documents": documents, "model": "overlap"})
    assert answer["model"] == "overlap"
    assert answer["usage"] == {"total_tokens": 14}
    # Equal scores keep the order in which the passages came.
    assert [result["index"] for result in answer["results"]] == [1, 2, 0]
    assert [result["document"] for result in answer["results"]] == [
        {"text": "parse the line"},
        {"text": "parse line"},
        {"text": "nothing of it"},
    ]
    assert [result["relevance_score"] for result in answer["results"]] == [1, 1, 0]
    assert [result["raw_score"] for result in answer["results"]] == [5, 5, -5]


async def test_rerank_can_leave_out_texts_and_all_but_the_best(http: httpx.AsyncClient) -> None:
    body = {"query": "parse line", "documents": ["no", "parse line"], "top_n": 1, "return_documents": False}
    (result,) = (await ask(http, "POST", "/v1/rerank", body))["results"]
    assert result["index"] == 1
    assert "document" not in result


async def test_search_explains_each_hit(filled: httpx.AsyncClient) -> None:
    answer = await ask(filled, "POST", "/v1/search", {"query": "parse command line", "rerank": True})
    best = answer["results"][0]
    assert (best["id"], best["text"]) == ("argparse", "parse command line arguments")
    assert best["metadata"] == {"module": "argparse", "lines": 900}
    assert best["ranks"] == {"dense": 1, "full_text": 1}
    assert set(best["scores"]) == {"dense", "full_text", "fused", "rerank"}
    assert best["score"] == best["scores"]["rerank"] == 1
    assert set(answer["timings_ms"]) == {"embed", "retrieve", "rerank"}
    assert answer["usage"]["total_tokens"] == sum(answer["usage"]["stages"].values()) > 0


async def test_search_times_its_stages_in_a_header(filled: httpx.AsyncClient) -> None:
    response = await filled.post("/v1/search", json={"query": "parse"})
    stages = [part.split(";")[0] for part in response.headers["server-timing"].split(", ")]
    assert stages == ["read", "answer", "render", "embed", "retrieve", "total"]


async def test_a_list_of_queries_gives_a_list_of_lists(filled: httpx.AsyncClient) -> None:
    answer = await ask(filled, "POST", "/v1/search", {"query": ["compressed files", "no such thing", "shell"], "mode": "full_text"})
    assert [[hit["id"] for hit in hits] for hits in answer["results"]] == [["gzip"], [], ["shlex"]]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({"top_k": 1}, ["argparse"]),
        ({"top_k": 1, "offset": 1}, ["shlex"]),
        ({"filter": {"field": "lines", "lt": 100}}, ["shlex"]),
        ({"filter": {"not": {"field": "module", "in": ["argparse", "gzip"]}}}, ["shlex"]),
        ({"filter": None, "candidates": 1, "top_k": 1}, ["argparse"]),
        ({"min_score": 0.9, "rerank": "overlap"}, ["argparse"]),
        ({"min_score": 1, "rerank": False}, []),
    ],
)
async def test_search_options(filled: httpx.AsyncClient, options: dict[str, Any], ids: list[str]) -> None:
    answer = await ask(filled, "POST", "/v1/search", {"query": "command line", "mode": "full_text", **options})
    assert [hit["id"] for hit in answer["results"]] == ids


async def test_documents_are_put_got_paged_and_deleted(filled: httpx.AsyncClient) -> None:
    path = "/v1/collections/default/documents"
    changed = [{**DOCUMENTS[0], "text": "compress"}, DOCUMENTS[1]]
    assert await ask(filled, "PUT", path, {"documents": changed}) == {
        "upserted": 1,
        "unchanged": 1,
        "truncated": [],
        "usage": {"total_tokens": 1},
    }

    got = await ask(filled, "GET", f"{path}?id=shlex&id=missing&id=gzip")
    assert got == {"documents": [DOCUMENTS[2], changed[0]], "next": None}

    first = await ask(filled, "GET", f"{path}?limit=2")
    second = await ask(filled, "GET", f"{path}?limit=2&after={first['next']}")
    assert [document["id"] for document in first["documents"] + second["documents"]] == ["argparse", "gzip", "shlex"]
    assert second["next"] is None

    assert await ask(filled, "DELETE", path, {"filter": {"field": "old", "eq": True}}) == {"deleted": 1}
    assert await ask(filled, "DELETE", path, {"ids": ["gzip", "missing"]}) == {"deleted": 1}
    assert (await ask(filled, "GET", "/v1/collections/default"))["count"] == 1


async def test_ids_survive_a_url(http: httpx.AsyncClient) -> None:
    ids = ["a&b=c", "ü/ß", "a b+c", "100%", "#?"]
    documents = [{"id": id, "title": "", "text": "text", "metadata": {}} for id in ids]
    await ask(http, "PUT", "/v1/collections/default/documents", {"documents": documents})
    answer = await ask(http, "GET", "/v1/collections/default/documents", params={"id": ids})
    assert answer["documents"] == documents


async def test_a_title_comes_back_as_it_was_sent(http: httpx.AsyncClient) -> None:
    document = {"id": "a", "title": "Compression", "text": "read files", "metadata": {}}
    await ask(http, "PUT", "/v1/collections/default/documents", {"documents": [document]})
    assert (await ask(http, "GET", "/v1/collections/default/documents?id=a"))["documents"] == [document]


async def test_a_document_that_was_cut_is_named_and_stored_whole(http: httpx.AsyncClient) -> None:
    documents = [{"id": "long", "text": LONG}]
    assert (await ask(http, "PUT", "/v1/collections/default/documents", {"documents": documents}))["truncated"] == ["long"]
    (stored,) = (await ask(http, "GET", "/v1/collections/default/documents?id=long"))["documents"]
    assert stored["text"] == LONG


async def test_a_collection_tells_its_state(filled: httpx.AsyncClient) -> None:
    answer = await ask(filled, "GET", "/v1/collections/default")
    told = {"name": "default", "count": 3, "fingerprint": FINGERPRINT, "state": "ready", "legs": ["dense", "full_text"]}
    assert answer == {**told, "aliases": [], "warning": None}


async def test_a_collection_is_deleted_whole(filled: httpx.AsyncClient) -> None:
    await ask(filled, "PUT", "/v1/collections/other/documents", {"documents": DOCUMENTS[:2]})
    assert await ask(filled, "DELETE", "/v1/collections/other") == {"deleted": 2}
    for method in ("GET", "DELETE"):
        response = await filled.request(method, "/v1/collections/other")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert (await ask(filled, "GET", "/v1/collections/default"))["count"] == 3
    assert await ask(filled, "DELETE", "/v1/collections/default", {}) == {"deleted": 3}
    assert (await ask(filled, "GET", "/v1/collections/default"))["count"] == 0


async def test_the_default_collection_is_there_before_its_first_write(http: httpx.AsyncClient) -> None:
    assert (await ask(http, "GET", "/v1/collections/default"))["fingerprint"] is None


async def test_models_in_openais_shape(http: httpx.AsyncClient) -> None:
    answer = await ask(http, "GET", "/v1/models")
    assert [(model["id"], model["object"], model["role"]) for model in answer["data"]] == [
        ("hashing", "model", "embedder"),
        ("overlap", "model", "reranker"),
    ]
    embedder, reranker = answer["data"]
    assert embedder["dimensions"] == DIMENSIONS
    assert (embedder["family"], embedder["kind"], embedder["options"], embedder["layers"]) == ("hash", "mean", ["instruction"], None)
    assert (reranker["kind"], reranker["options"], reranker["layers"]) == ("layerwise", ["instruction", "cutoff_layers"], list(LAYERS))
    assert await ask(http, "GET", "/v1/models/overlap") == reranker


async def test_a_model_that_is_not_served_is_not_found(http: httpx.AsyncClient) -> None:
    response = await http.get("/v1/models/bge")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert "'bge' is not served here; the models are ['hashing', 'overlap']" in response.json()["error"]["message"]


async def test_the_load_of_each_model(http: httpx.AsyncClient, stage: Stage) -> None:
    stage.reranking.load = ModelLoad("", 2, 1.5, 2000, 12345, 6, 7)
    hashing, overlap = (await ask(http, "GET", "/v1/load"))["models"]
    assert hashing["name"] == "hashing"
    assert overlap == {
        **{"name": "overlap", "replicas": 2, "backlog_s": 1.5, "tokens_per_s": 2000},
        **{"tokens_total": 12345, "refused_total": 6, "expired_total": 7},
    }
    assert (stage.embedding.started, stage.reranking.started) == (0, 0)


async def test_the_status_of_each_model_asks_none_of_them(http: httpx.AsyncClient, stage: Stage) -> None:
    stage.service.statuses = [
        ModelStatus("hashing", "embedder", "hashed-words", available=False, replicas={"STARTING": 2}, protocol="retriever"),
        ModelStatus("overlap", "reranker", "word-overlap", available=True, replicas={}, protocol="reranker"),
    ]
    answer = await ask(http, "GET", "/v1/status")
    assert answer == {
        "models": [
            {
                "name": "hashing",
                "role": "embedder",
                "model": "hashed-words",
                "available": False,
                "replicas": {"STARTING": 2},
                "protocol": "retriever",
            },
            {
                "name": "overlap",
                "role": "reranker",
                "model": "word-overlap",
                "available": True,
                "replicas": {},
                "protocol": "reranker",
            },
        ]
    }


async def test_health_and_readiness(http: httpx.AsyncClient, stage: Stage) -> None:
    assert await ask(http, "GET", "/healthz") == {"status": "ok"}
    assert await ask(http, "GET", "/readyz") == {"ready": True, "waiting_for": []}
    stage.readiness = Readiness(ready=False, waiting_for=["embedder:hashing"])
    response = await http.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "waiting_for": ["embedder:hashing"]}
    assert response.headers["retry-after"] == "1"
    stage.readiness = Unavailable("the controller does not answer", retry_after_s=2.5)
    response = await http.get("/readyz")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert (await http.get("/healthz")).status_code == 200
    assert stage.embedding.started == stage.reranking.started == 0


async def test_the_page_is_served(http: httpx.AsyncClient) -> None:
    response = await http.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert "/v1/search" in response.text


@pytest.mark.parametrize(
    ("headers", "lanes"),
    [({}, ["interactive", "bulk"]), ({"x-lane": "bulk"}, ["bulk"] * 2), ({"x-lane": "interactive"}, ["interactive"] * 2)],
)
async def test_lanes(http: httpx.AsyncClient, stage: Stage, headers: dict[str, str], lanes: list[Lane]) -> None:
    await ask(http, "POST", "/v1/encode", {"input": "a"}, headers=headers)
    await ask(http, "PUT", "/v1/collections/default/documents", {"documents": [{"id": "a", "text": "a"}]}, headers=headers)
    assert stage.embedding.lanes == lanes


async def test_every_operation_is_described(http: httpx.AsyncClient) -> None:
    description = (await http.get("/openapi.json")).json()
    described = {(method, path) for path, methods in description["paths"].items() for method in methods}
    assert described == {
        ("post", "/v1/encode"),
        ("post", "/v1/search"),
        ("post", "/v1/embeddings"),
        ("post", "/v1/rerank"),
        ("get", "/v1/models"),
        ("get", "/v1/models/{name}"),
        ("get", "/v1/status"),
        ("get", "/v1/load"),
        ("post", "/inference"),
        ("post", "/info"),
        ("post", "/support_methods"),
        ("put", "/v1/collections/{collection}/documents"),
        ("get", "/v1/collections/{collection}/documents"),
        ("delete", "/v1/collections/{collection}/documents"),
        ("get", "/v1/collections/{collection}"),
        ("delete", "/v1/collections/{collection}"),
        ("put", "/v1/collections/{collection}"),
        ("get", "/v1/collections"),
        ("get", "/v1/collections/{collection}/chunks"),
        ("put", "/v1/collections/{collection}/chunks"),
        ("post", "/v1/collections/{collection}/copies"),
        ("get", "/v1/aliases"),
        ("put", "/v1/aliases/{alias}"),
        ("delete", "/v1/aliases/{alias}"),
        ("get", "/healthz"),
        ("get", "/readyz"),
    }
    references = set(_references(description))
    assert references
    assert {reference.rpartition("/")[2] for reference in references} <= set(description["components"]["schemas"])


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in _references(value)]
    return [found for value in node for found in _references(value)] if isinstance(node, list) else []
