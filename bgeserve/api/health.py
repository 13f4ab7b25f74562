"""What probes ask: is the process there, and can it serve. Neither starts a forward."""

from __future__ import annotations

from typing_extensions import TypedDict

from bgeserve.api.operation import Answer, Call, Operation
from bgeserve.api.schema import Nothing


class HealthResponse(TypedDict):
    status: str


class ReadyResponse(TypedDict):
    ready: bool
    waiting_for: list[str]


async def healthz(call: Call, body: Nothing) -> Answer:
    response: HealthResponse = {"status": "ok"}
    return Answer(lambda: response)


async def readyz(call: Call, body: Nothing) -> Answer:
    readiness = await call.backend.readiness()
    response: ReadyResponse = {"ready": readiness.ready, "waiting_for": list(readiness.waiting_for)}
    if readiness.ready:
        return Answer(lambda: response)
    return Answer(lambda: response, status=503, headers={"retry-after": "1"})


OPERATIONS = (
    Operation("GET", "/healthz", "Whether the process answers", Nothing, HealthResponse, healthz),
    Operation("GET", "/readyz", "Whether every deployment can serve: 200, or 503 with what is waited for", Nothing, ReadyResponse, readyz),
)
