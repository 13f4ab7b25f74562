"""As much of HTTP/1.1 as a load client needs: requests as bytes, answers recognised by their length. Reads no JSON but one number."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from benchmarks.serving.plan import Reply

HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

_USAGE = re.compile(rb'"total_tokens"\s*:\s*(\d+)')


def request_bytes(path: str, body: object, headers: Mapping[str, str]) -> bytes:
    content = json.dumps(body, ensure_ascii=False).encode()
    lines = {"host": "127.0.0.1", "content-type": "application/json", "content-length": str(len(content)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + content


class AnswerReader:
    """One answer, fed with bytes as they arrive."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._received = 0
        self._tail = b""
        self._head: bytes | None = None
        self._ends_at: int | None = None
        """Bytes of the whole answer; None: it comes in chunks, and the last one says that it is the last."""

    def feed(self, data: bytes) -> bool:
        """Whether this was the last of it."""
        self._parts.append(data)
        self._received += len(data)
        self._tail = (self._tail + data[-len(LAST_CHUNK) :])[-len(LAST_CHUNK) :]
        if self._head is None and not self._read_head():
            return False
        if self._ends_at is not None:
            return self._received >= self._ends_at
        return self._tail == LAST_CHUNK

    def reply(self) -> Reply:
        assert self._head is not None
        headers = self._headers()
        body = b"".join(self._parts)
        # From the end, where every server has it: the vectors before it are long.
        found = _USAGE.match(body, max(0, body.rfind(b'"total_tokens"')))
        return Reply(int(self._head[9:12]), int(found[1]) if found else None, _retry_after_s(headers))

    def _read_head(self) -> bool:
        joined = b"".join(self._parts)
        end = joined.find(HEAD_END)
        if end < 0:
            return False
        self._parts = [joined]
        self._head = joined[:end]
        length = self._headers().get("content-length")
        self._ends_at = None if length is None else end + len(HEAD_END) + int(length)
        return True

    def _headers(self) -> dict[str, str]:
        assert self._head is not None
        lines = (line.partition(":") for line in self._head.decode("latin-1").split("\r\n")[1:])
        return {name.strip().lower(): value.strip() for name, _, value in lines}


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    if "retry-after-ms" in headers:
        return float(headers["retry-after-ms"]) / 1000
    return float(headers["retry-after"]) if "retry-after" in headers else None
