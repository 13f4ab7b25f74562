"""One line per request: who asked for what, how it ended and where the time went. Never a text, never a key, never a raw URL.

Knows the log record's fields; the process around it decides where records go, and whether as JSON (each field) or as text (the message).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bgeserve.observe import ACCESS_LOGGER

logger = logging.getLogger(ACCESS_LOGGER)

SANE = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
"""What a caller may have in our log: nothing that could be a text, or a line of its own."""
PROBES = frozenset({"/healthz", "/readyz"})
"""Asked every few seconds: at debug level as long as all is well."""
HUNG_UP = 499


@dataclass(slots=True)
class Entry:
    """What is known of one request so far; what is empty does not appear in its line."""

    request_id: str
    method: str
    route: str = ""
    """The operation's path with its parameters' names. Empty: there is nothing at the path that was sent, which is not repeated."""
    status: int = 0
    error: str = ""
    """The code of what it was answered instead."""
    key_id: str = ""
    model: str = ""
    collection: str = ""
    lane: str = ""
    tokens: int = 0
    """Computed for it, over all stages."""
    stages_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    """As in `server-timing`, without the total."""
    degraded: Sequence[str] = ()

    def write(self, total_ms: float) -> None:
        level = logging.DEBUG if self.route in PROBES and self.status < 400 else logging.INFO
        if logger.isEnabledFor(level):
            logger.log(level, self._message(total_ms), extra=self._fields(total_ms))

    def _message(self, total_ms: float) -> str:
        told = [self.method, self.route or "(no such path)", str(self.status), f"{total_ms:.1f}ms", self.error, self.model, self.collection]
        return " ".join([part for part in told if part] + ([f"{self.tokens} tokens"] if self.tokens else []))

    def _fields(self, total_ms: float) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "request_id": self.request_id,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "total_ms": round(total_ms, 2),
        }
        if self.stages_ms:
            fields["stages_ms"] = {name: round(ms, 2) for name, ms in self.stages_ms.items()}
        for name in ("error", "key_id", "model", "collection", "lane", "tokens", "degraded"):
            if value := getattr(self, name):
                fields[name] = value
        return fields


class AccessLog:
    """ASGI middleware, outermost: what is refused at the door has its line too."""

    def __init__(self, app: ASGIApp, *, answers_request_id: bool) -> None:
        """answers_request_id: whether the answer gets `x-request-id` here; not where the server around this app does it."""
        self._app = app
        self._answers_request_id = answers_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        entry = Entry(_request_id(scope), scope["method"])
        scope.setdefault("state", {})["entry"] = entry

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry.status = message["status"]
                if self._answers_request_id:
                    message["headers"] = [*message.get("headers", ()), (b"x-request-id", entry.request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            entry.status = entry.status or HUNG_UP
            entry.key_id = scope["state"].get("key_id", "")
            entry.write(1000 * (perf_counter() - started))


def entry_of(scope: Scope) -> Entry:
    return scope["state"]["entry"]


def name_of(sent: str | None) -> str:
    """What was sent as a name, if it can be one."""
    return sent if sent is not None and SANE.fullmatch(sent) else ""


def _request_id(scope: Scope) -> str:
    """The caller's own where it is sane enough for a log, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and (sane := name_of(value.decode("latin-1"))):
            return sane
    return uuid4().hex
