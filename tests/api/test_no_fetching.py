"""No URL and no path of a request is ever opened: a text that looks like one is a text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.test_redaction import chunk

ADDRESSES = [
    "http://169.254.169.254/latest/meta-data/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "s3://bucket/key",
    "/etc/passwd",
]

opened: list[tuple[str, object]] | None = None
"""What was, while a test listens; an audit hook cannot be taken away."""


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if opened is not None and event in ("socket.connect", "socket.getaddrinfo", "open", "subprocess.Popen", "os.listdir"):
        opened.append((event, arguments[0] if event != "socket.connect" else arguments[1]))


sys.addaudithook(_hear)


@pytest.fixture
def heard() -> Iterator[list[tuple[str, object]]]:
    global opened
    opened = []
    yield opened
    opened = None


def requests(address: str) -> list[tuple[str, str, Any]]:
    documents = "/v1/collections/default/documents"
    return [
        ("POST", "/v1/encode", {"input": address}),
        ("POST", "/v1/encode", {"input": "a", "model": address}),
        ("POST", "/v1/encode", {"input": address, "input_type": "query", "instruction": address}),
        ("POST", "/v1/embeddings", {"input": [address]}),
        ("POST", "/v1/embeddings", {"input": [{"url": address}]}),
        ("POST", "/v1/rerank", {"query": address, "documents": [address, {"text": address}]}),
        ("POST", "/v1/search", {"query": address, "rerank": address}),
        ("POST", "/v1/search", {"query": address, "collection": address}),
        ("POST", "/inference", {"model": "hashing", "sentences": address}),
        ("POST", "/info", {"model": address}),
        ("PUT", documents, {"documents": [{"id": address, "text": address, "metadata": {"url": address, "source": [address]}}]}),
        ("PUT", "/v1/collections/new", {"embedder": address}),
        ("PUT", "/v1/collections/default/chunks", {"fingerprint": address, "chunks": [chunk(text=address)]}),
        ("PUT", "/v1/aliases/new", {"collection": address}),
        ("POST", "/v1/collections/default/copies", {"name": address}),
    ]


def test_the_ear_hears(heard: list[tuple[str, object]]) -> None:
    with pytest.raises(httpx.ConnectError):
        httpx.get("http://127.0.0.1:9/")
    with open("/etc/hostname", "rb"):  # noqa: PTH123 (what the hook hears)
        pass
    assert ("socket.connect", ("127.0.0.1", 9)) in heard
    assert ("open", "/etc/hostname") in heard


@pytest.mark.parametrize("address", ADDRESSES)
async def test_an_address_is_a_text(http: httpx.AsyncClient, heard: list[tuple[str, object]], address: str) -> None:
    await http.post("/v1/encode", json={"input": "what is imported late is imported"})
    for method, path, body in requests(address):
        heard.clear()
        response = await http.request(method, path, json=body)
        assert response.status_code < 500 or path.endswith(("chunks", "copies")), (path, response.text)
        reached = [what for what in heard if any(part in str(what) for part in ("169.254", "passwd", "6379", "bucket"))]
        assert reached == [], path
        assert [what for what in heard if what[0] in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen")] == [], path


@pytest.mark.parametrize("name", ["../elsewhere", "/tmp/elsewhere", "a/b", "..", ".hidden", "a\0b", "file:///tmp/x"])
async def test_a_copy_has_a_name_and_no_path(http: httpx.AsyncClient, name: str) -> None:
    response = await http.post("/v1/collections/default/copies", json={"name": name})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "name")
