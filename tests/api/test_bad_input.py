"""Every way to be refused: the status, and a message that names the field, the limit and what was sent, in OpenAI's error shape."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bgeserve.api import create_app
from bgeserve.errors import (
    BgeServeError,
    CheckpointError,
    ComputeError,
    DeadlineExceeded,
    FingerprintMismatch,
    Overloaded,
    ReplicaFull,
    StorageFull,
    Unavailable,
)
from bgeserve.settings import IngressSettings
from tests.api.backend import Stage

DOCUMENTS = "/v1/collections/default/documents"
ID = {"id": "a", "text": "b"}
QUERY = {"input": "a", "input_type": "query"}
PAIR = {"query": "a", "documents": ["b"]}


def error_of(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert len(error["message"]) <= 1010
    return error


def deep(levels: int) -> Any:
    nested: Any = []
    for _ in range(levels):
        nested = [nested]
    return nested


BODIES: list[tuple[str, str, Any, str, list[str]]] = [
    # texts
    ("POST", "/v1/encode", {}, "input", ["required", "no fields"]),
    ("POST", "/v1/encode", {"model": "hashing"}, "input", ["required", "model"]),
    ("POST", "/v1/encode", {"input": []}, "input", ["1 to 50", "not 0"]),
    ("POST", "/v1/encode", {"input": ["a"] * 51}, "input", ["1 to 50", "max_texts", "not 51"]),
    ("POST", "/v1/encode", {"input": ""}, "input", ["white space", "''"]),
    ("POST", "/v1/encode", {"input": ["a", " \n\t\u3000"]}, "input[1]", ["white space"]),
    ("POST", "/v1/encode", {"input": 5}, "input", ["string", "not 5"]),
    ("POST", "/v1/encode", {"input": None}, "input", ["string", "not None"]),
    ("POST", "/v1/encode", {"input": {"text": "a"}}, "input", ["string", "'text': '...'"]),
    ("POST", "/v1/encode", {"input": ["a", 5]}, "input[1]", ["string", "not 5"]),
    ("POST", "/v1/encode", {"input": ["a", None]}, "input[1]", ["string", "not None"]),
    ("POST", "/v1/encode", {"input": ["a", ["b"]]}, "input[1]", ["string", "['...']"]),
    ("POST", "/v1/encode", {"input": 2**64 - 1}, "input", ["string"]),
    # other fields
    ("POST", "/v1/encode", {"input": "a", "colour": 1}, "colour", ["not a field", "input, model, outputs"]),
    ("POST", "/v1/encode", {"input": "a", "model": 5}, "model", ["string", "not 5"]),
    ("POST", "/v1/encode", {"input": "a", "outputs": []}, "outputs", ["at least 1", "not 0"]),
    ("POST", "/v1/encode", {"input": "a", "outputs": ["dens"]}, "outputs[0]", ["'dense'", "not 'dens'"]),
    ("POST", "/v1/encode", {"input": "a", "outputs": "dense"}, "outputs", ["list", "not 'dense'"]),
    ("POST", "/v1/encode", {"input": "a", "outputs": ["dense"] * 4}, "outputs", ["at most 3", "not 4"]),
    ("POST", "/v1/encode", {"input": "a", "input_type": "passage"}, "input_type", ["'query' or 'document'", "'passage'"]),
    ("POST", "/v1/encode", {"input": "a", "truncate": "yes"}, "truncate", ["boolean", "not 'yes'"]),
    ("POST", "/v1/encode", {"input": "a", "truncate": 1}, "truncate", ["boolean", "not 1"]),
    ("POST", "/v1/encode", {"input": "a", "encoding_format": "int8"}, "encoding_format", ["'float' or 'base64'", "'int8'"]),
    ("POST", "/v1/encode", {"input": "word " * 17, "truncate": False}, "input", ["16 tokens", "input[0]"]),
    # what is asked of an embedder
    ("POST", "/v1/encode", {"input": "a", "instruction": "i"}, "instruction", ["for queries", 'input_type "query"', '"document"']),
    ("POST", "/v1/encode", {"input": "a", "input_type": "document", "instruction": ""}, "instruction", ["for queries"]),
    ("POST", "/v1/encode", {"input": "a", "examples": []}, "examples", ["for queries", '"document"']),
    ("POST", "/v1/encode", {**QUERY, "instruction": 5}, "instruction", ["string", "not 5"]),
    ("POST", "/v1/encode", {**QUERY, "examples": {}}, "examples", ["list", "not {}"]),
    ("POST", "/v1/encode", {**QUERY, "examples": [{"query": "a", "response": "b"}] * 33}, "examples", ["at most 32", "not 33"]),
    ("POST", "/v1/encode", {**QUERY, "examples": ["a"]}, "examples[0]", ["object", "not a string of length 1"]),
    ("POST", "/v1/encode", {**QUERY, "examples": [{"query": "a"}]}, "examples[0].response", ["required", "query"]),
    ("POST", "/v1/encode", {**QUERY, "examples": [{"query": " ", "response": "b"}]}, "examples[0].query", ["white space"]),
    ("POST", "/v1/encode", {**QUERY, "examples": [{"query": "a", "answer": "b"}]}, "examples[0].answer", ["query, response, instruction"]),
    ("POST", "/v1/encode", {**QUERY, "examples": [{"query": "a", "response": "b"}]}, "examples", ["hashing takes none"]),
    # OpenAI's shape
    ("POST", "/v1/embeddings", {"input": [1, 2, 3]}, "input", ["token ids", "[1, 2, 3]"]),
    ("POST", "/v1/embeddings", {"input": [[1, 2], [3]]}, "input", ["token ids", "[[1, 2], [3]]"]),
    ("POST", "/v1/embeddings", {"input": []}, "input", ["1 to 50"]),
    ("POST", "/v1/embeddings", {"input": "a", "dimensions": 8}, "dimensions", ["must be 32", "not 8"]),
    ("POST", "/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions", ["greater than or equal to 1", "not 0"]),
    ("POST", "/v1/embeddings", {"input": "a", "dimensions": 2.5}, "dimensions", ["integer", "2.5"]),
    # Jina's shape
    ("POST", "/v1/rerank", {"query": "a"}, "documents", ["required", "query"]),
    ("POST", "/v1/rerank", {"query": "a", "documents": []}, "documents", ["1 to 50", "not 0"]),
    ("POST", "/v1/rerank", {"query": "a", "documents": "b"}, "documents", ["list", "not a string of length 1"]),
    ("POST", "/v1/rerank", {"query": "a", "documents": [" "]}, "documents[0]", ["white space"]),
    ("POST", "/v1/rerank", {"query": "a", "documents": ["b", {"title": "c"}]}, "documents[1]", ["text", "'title'"]),
    ("POST", "/v1/rerank", {"query": "a", "documents": [{"text": ""}]}, "documents[0].text", ["white space"]),
    ("POST", "/v1/rerank", {"query": ["a"], "documents": ["b"]}, "query", ["string", "['...']"]),
    ("POST", "/v1/rerank", {"query": "", "documents": ["b"]}, "query", ["white space"]),
    ("POST", "/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, "top_n", ["greater than or equal to 1", "not 0"]),
    # what is asked of a reranker
    ("POST", "/v1/rerank", {**PAIR, "instruction": ["i"]}, "instruction", ["string", "['...']"]),
    ("POST", "/v1/rerank", {**PAIR, "prompt": 5}, "prompt", ["string", "not 5"]),
    ("POST", "/v1/rerank", {**PAIR, "cutoff_layers": []}, "cutoff_layers", ["list of 1 to 256", "not []"]),
    ("POST", "/v1/rerank", {**PAIR, "cutoff_layers": [8] * 257}, "cutoff_layers", ["list of 1 to 256"]),
    ("POST", "/v1/rerank", {**PAIR, "cutoff_layers": True}, "cutoff_layers", ["number of a layer", "not True"]),
    ("POST", "/v1/rerank", {**PAIR, "cutoff_layers": "8"}, "cutoff_layers", ["number of a layer", "not '8'"]),
    ("POST", "/v1/rerank", {**PAIR, "cutoff_layers": [8, 16.5]}, "cutoff_layers", ["number of a layer", "[8, 16.5]"]),
    ("POST", "/v1/rerank", {**PAIR, "cutoff_layers": 41}, "cutoff_layers", ["from 8 to 40", "not 41"]),
    ("POST", "/v1/rerank", {**PAIR, "compress_layers": 8}, "compress_layers", ["list", "not 8"]),
    ("POST", "/v1/rerank", {**PAIR, "compress_layers": [8, "b"]}, "compress_layers[1]", ["integer", "not 'b'"]),
    ("POST", "/v1/rerank", {**PAIR, "compress_ratio": 0}, "compress_ratio", ["greater than or equal to 1", "not 0"]),
    ("POST", "/v1/rerank", {**PAIR, "compress_ratio": 2}, "compress_ratio", ["overlap does not take it"]),
    ("POST", "/v1/rerank", {**PAIR, "weights": [1]}, "weights", ["object", "[1]"]),
    ("POST", "/v1/rerank", {**PAIR, "weights": {"full_text": 1}}, "weights.full_text", ["dense, sparse, multi_vector"]),
    ("POST", "/v1/rerank", {**PAIR, "weights": {"dense": -1}}, "weights.dense", ["greater than or equal to 0", "not -1"]),
    ("POST", "/v1/rerank", {**PAIR, "weights": {}}, "weights", ["at least one of dense, sparse, multi_vector above 0", "{}"]),
    ("POST", "/v1/rerank", {**PAIR, "weights": {"dense": 0.0}}, "weights", ["above 0", "{'dense': 0.0}"]),
    # search
    ("POST", "/v1/search", {"query": "a", "instruction": 5}, "instruction", ["string", "not 5"]),
    ("POST", "/v1/search", {"query": "a", "rerank_options": {}}, "rerank_options", ["not a field"]),
    ("POST", "/v1/search", {"query": []}, "query", ["1 to 50", "not 0"]),
    ("POST", "/v1/search", {"query": ["a", ""]}, "query[1]", ["white space"]),
    ("POST", "/v1/search", {"query": "a", "top_k": 0}, "top_k", ["greater than or equal to 1", "not 0"]),
    ("POST", "/v1/search", {"query": "a", "top_k": -1}, "top_k", ["greater than or equal to 1", "not -1"]),
    ("POST", "/v1/search", {"query": "a", "top_k": 10_000_000}, "top_k", ["at most 100", "max_top_k", "not 10000000"]),
    ("POST", "/v1/search", {"query": "a", "top_k": "5"}, "top_k", ["integer", "not '5'"]),
    ("POST", "/v1/search", {"query": "a", "top_k": True}, "top_k", ["integer", "not True"]),
    ("POST", "/v1/search", {"query": "a", "top_k": 1e300}, "top_k", ["integer", "1e+300"]),
    ("POST", "/v1/search", {"query": "a", "offset": -1}, "offset", ["greater than or equal to 0", "not -1"]),
    ("POST", "/v1/search", {"query": "a", "offset": 101}, "offset", ["at most 100", "not 101"]),
    ("POST", "/v1/search", {"query": "a", "candidates": 0}, "candidates", ["greater than or equal to 1", "not 0"]),
    ("POST", "/v1/search", {"query": "a", "rerank_top": 101}, "rerank_top", ["at most 100", "not 101"]),
    ("POST", "/v1/search", {"query": "a", "mode": "bm25"}, "mode", ["'hybrid'", "not 'bm25'"]),
    ("POST", "/v1/search", {"query": "a", "rerank": 1}, "rerank", ["true, false or the name", "not 1"]),
    ("POST", "/v1/search", {"query": "a", "rerank": "hashing"}, "rerank", ["'hashing'", "overlap"]),
    ("POST", "/v1/search", {"query": "a", "min_score": "high"}, "min_score", ["number", "not 'high'"]),
    ("POST", "/v1/search", {"query": "a", "collection": "no such/name"}, "collection", ["pattern", "'no such/name'"]),
    ("POST", "/v1/search", {"query": "a", "filter": {}}, "filter", ["must be an object such as", "{}"]),
    ("POST", "/v1/search", {"query": "a", "filter": []}, "filter", ["must be an object such as", "[]"]),
    ("POST", "/v1/search", {"query": "a", "filter": {"field": "x"}}, "filter", ["eq, in"]),
    ("POST", "/v1/search", {"query": "a", "filter": {"field": "x", "eq": None}}, "filter", ["filter.eq", "None"]),
    ("POST", "/v1/search", {"query": "a", "filter": {"and": []}}, "filter", ["at least one", "[]"]),
    ("POST", "/v1/search", {"query": "a", "filter": deep(900)}, "filter", ["must be an object"]),
    ("POST", "/v1/search", {"query": deep(900)}, "query[0]", ["must be a string"]),
    # documents
    ("PUT", DOCUMENTS, {"documents": []}, "documents", ["1 to 50", "not 0"]),
    ("PUT", DOCUMENTS, {"documents": {}}, "documents", ["list", "{}"]),
    ("PUT", DOCUMENTS, {"documents": ["a"]}, "documents[0]", ["object", "not a string of length 1"]),
    ("PUT", DOCUMENTS, {"documents": [{"id": "a"}]}, "documents[0].text", ["required", "id"]),
    ("PUT", DOCUMENTS, {"documents": [ID, {"id": 5, "text": "b"}]}, "documents[1].id", ["string", "not 5"]),
    ("PUT", DOCUMENTS, {"documents": [{"id": "", "text": "b"}]}, "documents[0].id", ["1 to 512", "not 0"]),
    ("PUT", DOCUMENTS, {"documents": [{"id": "x" * 513, "text": "b"}]}, "documents[0].id", ["1 to 512", "not 513"]),
    ("PUT", DOCUMENTS, {"documents": [{"id": "a", "text": " "}]}, "documents[0].text", ["white space"]),
    ("PUT", DOCUMENTS, {"documents": [{**ID, "vector": [1]}]}, "documents[0].vector", ["not a field", "id, text, title, metadata"]),
    ("PUT", DOCUMENTS, {"documents": [ID, {"id": "b", "text": "b"}, ID]}, "documents[2].id", ["documents[0]", "'a'"]),
    ("PUT", DOCUMENTS, {"documents": [{**ID, "metadata": []}]}, "documents[0].metadata", ["object", "[]"]),
    ("PUT", DOCUMENTS, {"documents": [{**ID, "metadata": {"m": None}}]}, "documents[0].metadata.m", ["string, boolean or finite", "None"]),
    ("PUT", DOCUMENTS, {"documents": [{**ID, "metadata": {"m": {"a": 1}}}]}, "documents[0].metadata.m", ["{'a': 1}"]),
    (
        "PUT",
        DOCUMENTS,
        {"documents": [{**ID, "metadata": {"m": 2**63}}]},
        "documents[0].metadata.m",
        ["9223372036854775807", "9223372036854775808"],
    ),
    ("PUT", DOCUMENTS, {"documents": [{**ID, "metadata": {"": 1}}]}, "documents[0].metadata.", ["named"]),
    ("PUT", "/v1/collections/-/documents", {"documents": [ID]}, "collection", ["pattern", "'-'"]),
    ("DELETE", DOCUMENTS, {}, "ids", ["ids or filter", "neither"]),
    ("DELETE", DOCUMENTS, {"ids": ["a"], "filter": {"field": "x", "eq": 1}}, "ids", ["ids or filter", "both"]),
    ("DELETE", DOCUMENTS, {"ids": []}, "ids", ["1 to 50", "not 0"]),
    ("DELETE", DOCUMENTS, {"ids": [7]}, "ids[0]", ["string", "not 7"]),
    ("DELETE", DOCUMENTS, {"filter": {}}, "filter", ["must be an object such as", "{}"]),
    ("DELETE", "/v1/collections/default", {"ids": ["a"]}, "ids", ["not a field"]),
    ("DELETE", "/v1/collections/default?id=a", None, "id", ["not a field"]),
    ("DELETE", "/v1/collections/-", {}, "collection", ["pattern", "'-'"]),
]


@pytest.mark.parametrize(("method", "path", "body", "param", "said"), BODIES)
async def test_a_field_is_wrong(http: httpx.AsyncClient, method: str, path: str, body: Any, param: str, said: list[str]) -> None:
    response = await http.request(method, path, json=body)
    error = error_of(response)
    assert response.status_code == 400, error
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_request", param)
    for part in [param, *said]:
        assert part in error["message"]


async def test_many_queries_with_many_hits_each(stage: Stage) -> None:
    transport = httpx.ASGITransport(create_app(stage.service, IngressSettings()))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        response = await http.post("/v1/search", json={"query": ["a"] * 1000, "top_k": 51})
    error = error_of(response)
    assert (response.status_code, error["param"]) == (400, "top_k")
    assert error["message"] == "top_k must be at most 50 for 1000 queries (50000 hits a request), not 51"


@pytest.mark.parametrize(
    ("query", "param", "said"),
    [
        ("limit=0", "limit", ["greater than or equal to 1", "'0'"]),
        ("limit=51", "limit", ["at most 50", "max_texts", "51"]),
        ("limit=many", "limit", ["integer", "'many'"]),
        ("limit=1&limit=2", "limit", ["integer", "['...', '...']"]),
        ("offset=5", "offset", ["not a field", "id, limit, after"]),
        ("id=", "id[0]", ["1 to 512"]),
        ("id=a&limit=5", "id", ["cannot be combined"]),
        ("&".join(f"id={i}" for i in range(51)), "id", ["1 to 50", "not 51"]),
    ],
)
async def test_the_query_string_is_wrong(http: httpx.AsyncClient, query: str, param: str, said: list[str]) -> None:
    response = await http.get(f"{DOCUMENTS}?{query}")
    error = error_of(response)
    assert (response.status_code, error["param"]) == (400, param)
    for part in said:
        assert part in error["message"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ["empty", "JSON object"]),
        (b'{"query": "a"', ["not JSON", "char 13"]),
        (b"{'query': 'a'}", ["not JSON", "line 1 column 2"]),
        (b'{"query": "a", "min_score": NaN}', ["not JSON", "char 28"]),
        (b'{"query": "a", "min_score": -Infinity}', ["not JSON", "line 1 column"]),
        (b'{"query": "a", "min_score": 1e999}', ["not JSON", "line 1 column"]),
        (b'{"query": "\\ud800"}', ["not JSON", "surrogate", "char 11"]),
        (b'{"query": "\xff"}', ["not UTF-8", "byte 11", "0xff"]),
        (b'{"query": "\xed\xa0\x80"}', ["not UTF-8", "byte 11"]),
        (b"[" * 5000, ["not JSON", "depth"]),
        (b'["query"]', ["must be an object", "['...']"]),
        (b'"query"', ["must be an object", "a string of length 5"]),
        (b"null", ["must be an object", "None"]),
    ],
)
async def test_the_body_is_no_json_object(http: httpx.AsyncClient, content: bytes, said: list[str]) -> None:
    response = await http.post("/v1/search", content=content)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (400, "invalid_request")
    for part in said:
        assert part in error["message"]


@pytest.mark.parametrize(
    ("headers", "status", "said"),
    [
        ({"content-type": "text/plain"}, 415, ["application/json", "'text/plain'"]),
        ({"content-type": "application/x-www-form-urlencoded"}, 415, ["application/json"]),
        ({"content-type": "application/json; charset=latin-1"}, 415, ["UTF-8", "latin-1"]),
        ({"content-encoding": "gzip"}, 415, ["identity", "'gzip'"]),
        ({"x-timeout-ms": "0"}, 400, ["x-timeout-ms", "1 to 3600000", "'0'"]),
        ({"x-timeout-ms": "-5"}, 400, ["x-timeout-ms", "'-5'"]),
        ({"x-timeout-ms": "1.5"}, 400, ["x-timeout-ms", "'1.5'"]),
        ({"x-timeout-ms": "soon"}, 400, ["x-timeout-ms", "'soon'"]),
        ({"x-timeout-ms": "9" * 5000}, 400, ["x-timeout-ms", "3600000"]),
        ({"x-lane": "fast"}, 400, ["x-lane", "interactive, bulk", "'fast'"]),
    ],
)
async def test_a_header_is_wrong(http: httpx.AsyncClient, headers: dict[str, str], status: int, said: list[str]) -> None:
    response = await http.post("/v1/search", content=b'{"query": "a"}', headers=headers)
    error = error_of(response)
    assert response.status_code == status
    for part in said:
        assert part in error["message"]


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'])
async def test_json_may_say_that_it_is_utf_8(http: httpx.AsyncClient, content_type: str) -> None:
    assert (await http.post("/v1/search", content=b'{"query": "a"}', headers={"content-type": content_type})).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "said"),
    [
        ("/v1/encode", {"input": "a", "model": "bge"}, 404, "model_not_found", ["'bge'", "hashing"]),
        ("/v1/encode", {"input": "a", "model": ""}, 404, "model_not_found", ["''", "hashing"]),
        ("/v1/encode", {"input": "a", "model": "overlap"}, 400, "wrong_role", ["'overlap'", "reranker", "hashing"]),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "model": "hashing"}, 400, "wrong_role", ["'hashing'", "embedder", "overlap"]),
        ("/v1/search", {"query": "a", "collection": "missing"}, 404, "not_found", ["'missing'"]),
    ],
)
async def test_what_is_named_is_not_there(http: httpx.AsyncClient, path: str, body: Any, status: int, code: str, said: list[str]) -> None:
    response = await http.post(path, json=body)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (status, code)
    for part in said:
        assert part in error["message"]


@pytest.mark.parametrize("path", ["/nowhere", "/v1/search/", "/v1/collections/a/b/c"])
async def test_there_is_no_such_path(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(path)
    assert response.status_code == 404
    assert path in error_of(response)["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/v1/search", {"POST"}), ("POST", "/v1/models", {"GET", "HEAD"}), ("PATCH", DOCUMENTS, {"GET", "HEAD", "PUT", "DELETE"})],
)
async def test_there_is_no_such_method(http: httpx.AsyncClient, method: str, path: str, allowed: set[str]) -> None:
    response = await http.request(method, path)
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == allowed
    assert method in error_of(response)["message"]


async def test_what_is_quoted_stays_short(http: httpx.AsyncClient) -> None:
    for body in [
        {"x" * 100_000: 1},
        {"query": 1, "model": "y"},
        {"query": "a", "mode": "z" * 100_000},
        {"query": "a", "filter": "f" * 100_000},
    ]:
        response = await http.post("/v1/search", json=body)
        assert error_of(response)
        assert response.status_code == 400
        assert len(response.content) < 2000


async def test_a_million_mistakes_are_one(http: httpx.AsyncClient) -> None:
    for body in [{f"f{i}": 1 for i in range(15_000)}, {"documents": [{f"f{i}": 1 for i in range(15_000)}]}, {"documents": [1] * 50}]:
        response = await http.put(DOCUMENTS, json=body)
        assert response.status_code == 400
        error_of(response)


@pytest.mark.parametrize(
    ("raised", "status", "kind", "code", "headers"),
    [
        (Overloaded("busy", retry_after_s=1.2), 429, "rate_limit_error", "overloaded", {"retry-after": "2"}),
        (ReplicaFull("full", retry_after_s=0.01), 429, "rate_limit_error", "replica_full", {"retry-after": "1"}),
        (Unavailable("starting"), 503, "server_error", "unavailable", {"retry-after": "1"}),
        (DeadlineExceeded("late"), 504, "server_error", "deadline_exceeded", {}),
        (StorageFull("no room"), 507, "server_error", "storage_full", {}),
        (FingerprintMismatch("another model"), 409, "invalid_request_error", "fingerprint_mismatch", {}),
        (ComputeError("this text failed"), 500, "server_error", "compute_error", {}),
    ],
)
async def test_each_error_of_the_backend_has_its_answer(
    http: httpx.AsyncClient, stage: Stage, raised: BgeServeError, status: int, kind: str, code: str, headers: dict[str, str]
) -> None:
    stage.embedding.failures = [raised]
    response = await http.post("/v1/encode", json={"input": "a"})
    assert error_of(response) == {"message": raised.message, "type": kind, "param": None, "code": code}
    assert response.status_code == status
    for name, value in headers.items():
        assert response.headers[name] == value


@pytest.mark.parametrize(
    "raised", [RuntimeError("/secret/path"), TimeoutError("/secret/path"), CheckpointError("/secret/path"), ValueError("/secret/path")]
)
async def test_what_nobody_raised_on_purpose_is_logged_and_not_told(
    http: httpx.AsyncClient, stage: Stage, caplog: pytest.LogCaptureFixture, raised: Exception
) -> None:
    stage.embedding.failures = [raised]
    response = await http.post("/v1/encode", json={"input": "a"})
    error = error_of(response)
    assert (response.status_code, error["type"], error["code"]) == (500, "server_error", "internal_error")
    assert "secret" not in response.text
    assert "/secret/path" in caplog.text


# -- fuzz ------------------------------------------------------------------------------------------------------------------------------

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4), max_leaves=12
)
FIELDS = {
    "/v1/encode": ["input", "model", "outputs", "input_type", "truncate", "encoding_format", "instruction", "examples"],
    "/v1/embeddings": ["input", "model", "encoding_format", "dimensions", "user", "input_type"],
    "/v1/rerank": [
        *("query", "documents", "model", "top_n", "return_documents", "truncate"),
        *("instruction", "prompt", "cutoff_layers", "compress_layers", "compress_ratio", "weights"),
    ],
    "/inference": ["model", "sentences", "sentence_pairs", "options"],
    "/info": ["model"],
    "/support_methods": ["model"],
    "/v1/search": [
        "query",
        "collection",
        "mode",
        "top_k",
        "offset",
        "candidates",
        "rerank",
        "rerank_top",
        "min_score",
        "filter",
        "instruction",
        "truncate",
    ],
    DOCUMENTS: ["documents", "truncate"],
}
PLAUSIBLE = st.sampled_from(
    [
        "a",
        ["a"],
        "default",
        "hashing",
        "overlap",
        1,
        True,
        8,
        [8, 40],
        "query",
        {"dense": 1},
        {"normalize": True},
        {"return_sparse": True, "return_colbert_vecs": True},
        [["a", "b"]],
        [{"query": "a", "response": "b"}],
        ["dense"],
        "base64",
        "hybrid",
        {"field": "x", "eq": 1},
        {"text": "a"},
        [{"id": "a", "text": "a"}],
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, Any]:
    path = draw(st.sampled_from(sorted(FIELDS)))
    fields = st.dictionaries(st.sampled_from(FIELDS[path]), PLAUSIBLE | JSON, max_size=5)
    return path, draw(JSON | fields)


@given(request=requests())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_json_gets_an_answer_or_a_reason(request: tuple[str, Any], http: httpx.AsyncClient) -> None:
    path, body = request
    response = await http.request("PUT" if path == DOCUMENTS else "POST", path, content=orjson.dumps(body))
    assert response.status_code in (200, 400, 404)
    if response.status_code != 200:
        if path.startswith("/v1/"):
            error_of(response)
        else:
            assert response.json().keys() == {"state", "msg"}


@given(content=st.binary(max_size=64))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_bytes_get_a_reason(content: bytes, http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/search", content=content)
    assert response.status_code == 400
    error_of(response)
