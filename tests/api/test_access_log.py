"""Each request leaves one line that says who asked for what and how it ended; no text, no key and no raw URL is in it."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest

from bgeserve.api import create_app
from bgeserve.api.keys import ApiKey
from bgeserve.observe import ACCESS_LOGGER
from tests.api.backend import Stage
from tests.api.conftest import LIMITS

SECRET = "sk-very-secret"
OURS = ("request_id", "method", "route", "status", "total_ms", "stages_ms")
OURS += ("error", "key_id", "model", "collection", "lane", "tokens", "degraded")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, ACCESS_LOGGER)
    return caplog


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name in OURS}


def the_line(lines: pytest.LogCaptureFixture) -> dict[str, Any]:
    (record,) = [record for record in lines.records if record.name == ACCESS_LOGGER]
    return fields_of(record)


async def test_a_search_says_where_its_time_went(http: httpx.AsyncClient, lines: pytest.LogCaptureFixture) -> None:
    answer = await http.post("/v1/search", json={"query": "a secret wish", "collection": "default"}, headers={"x-request-id": "mine-1"})
    line = the_line(lines)
    assert (line["request_id"], line["method"], line["route"], line["status"]) == ("mine-1", "POST", "/v1/search", 200)
    assert line["collection"] == "default"
    assert line["tokens"] == answer.json()["usage"]["total_tokens"]
    assert line["stages_ms"].keys() == {"read", "answer", "render", "embed", "retrieve"}
    assert line["total_ms"] >= line["stages_ms"]["answer"]
    assert answer.headers.get_list("x-request-id") == ["mine-1"]


async def test_the_message_alone_is_for_a_terminal(http: httpx.AsyncClient, lines: pytest.LogCaptureFixture) -> None:
    await http.post("/v1/encode", json={"input": "one two", "model": "hashing"})
    (message,) = lines.messages
    method, route, status, took, model, *tokens = message.split()
    assert (method, route, status, model, tokens) == ("POST", "/v1/encode", "200", "hashing", ["2", "tokens"])
    assert took.endswith("ms")


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/v1/encode", {"input": "secret", "model": "secret wishes\nand lies"}, {"status": 404, "error": "model_not_found"}),
        ("POST", "/v1/encode", {"inptu": "secret"}, {"status": 400, "error": "invalid_request"}),
        ("GET", "/secret/path?q=secret", None, {"status": 404, "route": ""}),
        ("GET", "/v1/collections/secret%20wishes", None, {"status": 400, "route": "/v1/collections/{collection}"}),
    ],
)
async def test_what_is_refused_has_its_line_without_what_was_sent(
    http: httpx.AsyncClient, lines: pytest.LogCaptureFixture, method: str, path: str, body: object, expected: dict[str, object]
) -> None:
    await http.request(method, path, json=body)
    line = the_line(lines)
    assert expected.items() <= line.items()
    assert "secret" not in json.dumps(line) + lines.text


@pytest.mark.parametrize("sent", ["", "x" * 129, "two words", "über"])
async def test_an_id_that_is_not_fit_for_a_log_is_replaced(http: httpx.AsyncClient, lines: pytest.LogCaptureFixture, sent: str) -> None:
    answer = await http.get("/v1/models", headers=[(b"x-request-id", sent.encode())])
    made = the_line(lines)["request_id"]
    assert made != sent
    assert len(made) == 32
    assert answer.headers["x-request-id"] == made


async def test_a_key_is_known_by_its_name_and_a_stranger_has_a_line_too(stage: Stage, lines: pytest.LogCaptureFixture) -> None:
    app = create_app(stage.service, LIMITS, [ApiKey("nightly", SECRET)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        await client.get("/v1/models", headers={"authorization": f"Bearer {SECRET}"})
        await client.get("/v1/models", headers={"authorization": "Bearer wrong"})
    known, stranger = map(fields_of, lines.records)
    assert (known["status"], known["key_id"]) == (200, "nightly")
    assert stranger["status"] == 401
    assert "key_id" not in stranger
    assert SECRET not in lines.text + json.dumps([known, stranger])


async def test_probes_are_quiet_while_all_is_well(http: httpx.AsyncClient, stage: Stage, lines: pytest.LogCaptureFixture) -> None:
    await http.get("/healthz")
    await http.get("/readyz")
    assert lines.records == []
    lines.set_level(logging.DEBUG, ACCESS_LOGGER)
    await http.get("/healthz")
    assert the_line(lines)["route"] == "/healthz"
