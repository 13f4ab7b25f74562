"""Bytes, seconds and clients that hang up: over real sockets, where these happen."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

from bgeserve.api import create_app
from tests.api.backend import Stage
from tests.api.conftest import LIMITS

TOO_MUCH = LIMITS.max_body_bytes + 1


def in_pieces(size: int) -> Iterator[bytes]:
    """Without a content-length."""
    for _ in range(size // 10_000):
        yield b" " * 10_000
    yield b" " * (size % 10_000)


@pytest.mark.parametrize("size", [TOO_MUCH, 5 * TOO_MUCH])
@pytest.mark.parametrize("streamed", [True, False])
def test_a_body_over_the_limit_is_refused_and_the_refusal_arrives(url: str, size: int, streamed: bool) -> None:
    response = httpx.post(f"{url}/v1/encode", content=in_pieces(size) if streamed else b" " * size)
    assert response.status_code == 413
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("too_large", "body")
    assert f"at most {LIMITS.max_body_bytes} bytes (max_body_bytes)" in error["message"]


def test_a_body_at_the_limit_is_read(url: str) -> None:
    body = b'{"input": "a"}'.ljust(LIMITS.max_body_bytes)
    assert httpx.post(f"{url}/v1/encode", content=in_pieces(0)).status_code == 400
    assert httpx.post(f"{url}/v1/encode", content=iter([body])).status_code == 200


def raw(url: str, request: bytes) -> bytes:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        return connection.recv(65_536)


def test_a_client_that_asks_first_is_refused_before_it_sends(url: str) -> None:
    head = f"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-length: {TOO_MUCH}\r\nexpect: 100-continue\r\n\r\n"
    assert raw(url, head.encode()).startswith(b"HTTP/1.1 413")


def test_a_connection_serves_the_next_request_after_a_refusal(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        for _ in range(3):
            assert client.post("/v1/encode", content=b" " * TOO_MUCH).status_code == 413
            assert client.post("/v1/encode", json={"input": "a", "colour": 1}).status_code == 400
            assert client.post("/v1/encode", json={"input": "a"}).status_code == 200


@pytest.mark.parametrize("server_default", [True, False])
async def test_a_deadline_cancels_the_work_and_says_so(stage: Stage, http: httpx.AsyncClient, server_default: bool) -> None:
    stage.embedding.delay_s = 60
    if server_default:
        app = create_app(stage.service, LIMITS.model_copy(update={"timeout_s": 0.05}))
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")
    response = await http.post("/v1/encode", json={"input": "a"}, headers={} if server_default else {"x-timeout-ms": "50"})
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"
    assert "50 ms" in response.json()["error"]["message"]
    assert stage.embedding.cancelled == 1


async def test_the_backend_hears_how_much_time_is_left(stage: Stage, http: httpx.AsyncClient) -> None:
    await http.post("/v1/encode", json={"input": "a"}, headers={"x-timeout-ms": "5000"})
    await http.post("/v1/encode", json={"input": "a"})
    stated, default = stage.embedding.timeouts_s
    assert stated is not None
    assert default is not None
    assert 0 < stated <= 5
    assert 5 < default <= LIMITS.timeout_s


async def test_work_is_cancelled_when_the_client_hangs_up(stage: Stage, url: str) -> None:
    stage.embedding.delay_s = 60
    async with httpx.AsyncClient(base_url=url) as client:
        asked = asyncio.create_task(client.post("/v1/encode", json={"input": "a"}))
        await until(lambda: stage.embedding.started == 1)
        asked.cancel()
        await until(lambda: stage.embedding.cancelled == 1)
        stage.embedding.delay_s = 0
        assert (await client.post("/v1/encode", json={"input": "a"})).status_code == 200


async def test_a_client_that_hangs_up_while_it_sends_starts_no_work(stage: Stage, url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b'POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{"input"')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/v1/encode", json={"input": "a"})).status_code == 200
    assert stage.embedding.started == 1


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (what it waits for happens in the server's thread)
            await asyncio.sleep(0.005)


class CountingExecutor(ThreadPoolExecutor):
    submitted = 0

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        self.submitted += 1
        return super().submit(*args, **kwargs)


@pytest.mark.parametrize(
    ("body", "threads"),
    [
        ({"input": "a"}, 0),
        ({"input": "a" * 100_000}, 1),  # a large body is parsed in a thread
        ({"input": ["a b c d e f g h"] * 50, "outputs": ["multi_vector"]}, 1),  # a large answer is written in one
    ],
)
async def test_large_json_stays_off_the_event_loop(http: httpx.AsyncClient, body: Any, threads: int) -> None:
    executor = CountingExecutor(max_workers=1)
    asyncio.get_running_loop().set_default_executor(executor)
    assert (await http.post("/v1/encode", json=body)).status_code == 200
    assert executor.submitted == threads


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_drips_is_refused_and_its_connection_closed(stage: Stage, server: tuple[str, Any], declared: bool) -> None:
    """Slow loris, whatever deadline its client states: a byte now and then keeps nothing open."""
    address, forward = server
    forward.app = create_app(stage.service, LIMITS.model_copy(update={"body_timeout_s": 0.2, "max_inflight_bytes": LIMITS.max_body_bytes}))
    host, port = address.removeprefix("http://").split(":")
    length = f"content-length: {LIMITS.max_body_bytes}" if declared else "transfer-encoding: chunked"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"POST /v1/encode HTTP/1.1\r\nhost: x\r\nx-timeout-ms: 3600000\r\n{length}\r\n\r\n".encode())
        connection.settimeout(0.02)
        answer = b""
        while not answer.endswith(b"}"):
            with suppress(TimeoutError):
                answer += connection.recv(65_536)
            with suppress(OSError):
                connection.sendall(b" " if declared else b"1\r\n \r\n")
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer
        assert b"must arrive within 0.2 s (body_timeout_s)" in answer
    assert httpx.post(f"{address}/v1/encode", json={"input": "a"}).status_code == 200, "what it held was given back"
