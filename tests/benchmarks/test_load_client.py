"""The load client against a server that sends what HTTP allows."""

from __future__ import annotations

import asyncio
import pickle
import sys

import pytest

from benchmarks.serving.http1 import AnswerReader, request_bytes
from benchmarks.serving.plan import NO_ANSWER, OK, Closed, Open, Record, Reply, Request

USAGE = b'{"data": [{"embedding": [0.1, 0.2]}], "usage": {"prompt_tokens": 7, "total_tokens": 7}, "id": "x"}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(USAGE) + USAGE
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(USAGE), USAGE)
REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 3\r\nretry-after-ms: 2150\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("answer", "reply"), [(PLAIN, Reply(OK, 7)), (CHUNKED, Reply(OK, 7)), (REFUSED, Reply(429, retry_after_s=2.15))], ids=str
)
@pytest.mark.parametrize("piece", [1, 13, 10_000])
def test_an_answer_ends_where_it_ends_however_it_arrives(answer: bytes, reply: Reply, piece: int) -> None:
    reader = AnswerReader()
    pieces = [answer[i : i + piece] for i in range(0, len(answer), piece)]
    assert [reader.feed(data) for data in pieces] == [False] * (len(pieces) - 1) + [True]
    assert reader.reply() == reply


def test_without_the_exact_header_seconds_count() -> None:
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n")
    assert reader.reply() == Reply(503, None, 2.0)


async def test_the_client_keeps_connections_replaces_closed_ones_and_hangs_up() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while line := await reader.readline():
            length = 0
            while (header := await reader.readline()).strip():
                name, _, value = header.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            await reader.readexactly(length)
            if b"/silent" in line:
                continue
            writer.write(PLAIN)
            if b"/last" in line:
                break
        writer.close()

    def request(path: str, hang_up_s: float | None = None) -> Request:
        return Request(request_bytes(path, {}, {}), 7, hang_up_s)

    requests = [request("/a"), request("/last"), request("/b"), request("/silent", hang_up_s=0.01), request("/c")]
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        record = await _run(server.sockets[0].getsockname()[1], requests)
    outcomes = record.outcomes["all"]
    assert [outcome.reply.status for outcome in outcomes] == [OK, OK, OK, NO_ANSWER, OK]
    assert connections == 3  # the first, one after it was closed, one after the client hung up


async def test_nobody_there_is_no_answer() -> None:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
    record = await _run(port, [Request(request_bytes("/", {}, {}), 1)])
    assert [outcome.reply for outcome in record.outcomes["all"]] == [Reply(NO_ANSWER)]


async def _run(port: int, requests: list[Request]) -> Record:
    command = [sys.executable, "-m", "benchmarks.serving.load_client"]
    client = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    plan: dict[str, Closed | Open] = {"all": Closed(requests, 1, float("inf"))}
    output, _ = await client.communicate(pickle.dumps((port, plan)))
    return pickle.loads(output)
