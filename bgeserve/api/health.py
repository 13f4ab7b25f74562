"""What probes and whoever waits for a model ask: is the process there, can it serve, which replicas run. None of it asks a model."""

from __future__ import annotations

from dataclasses import asdict
from typing import cast

from typing_extensions import TypedDict

from bgeserve.api.operation import Answer, Call, Operation
from bgeserve.api.schema import Nothing
from bgeserve.types import ModelStatus, Role


class HealthResponse(TypedDict):
    status: str


class ReadyResponse(TypedDict):
    ready: bool
    waiting_for: list[str]


class ModelStatusResponse(TypedDict):
    name: str
    role: Role
    model: str
    available: bool
    """A replica runs, or none does on purpose and the next call starts one."""
    replicas: dict[str, int]
    """How many there are in each state: STARTING, RUNNING, ..."""
    protocol: str
    """Which of the calls at /inference it answers: retriever or reranker."""


class StatusResponse(TypedDict):
    models: list[ModelStatusResponse]


class ModelLoadResponse(TypedDict):
    name: str
    replicas: int
    """How many of them said so: none where none runs, or one of them hangs."""
    backlog_s: float
    tokens_per_s: float
    """What they can do together, as measured."""
    tokens_total: int
    refused_total: int
    expired_total: int
    """Since each of them started: a total falls when one goes."""


class LoadResponse(TypedDict):
    models: list[ModelLoadResponse]


async def healthz(call: Call, body: Nothing) -> Answer:
    response: HealthResponse = {"status": "ok"}
    return Answer(lambda: response)


async def readyz(call: Call, body: Nothing) -> Answer:
    readiness = await call.backend.readiness()
    response: ReadyResponse = {"ready": readiness.ready, "waiting_for": list(readiness.waiting_for)}
    if readiness.ready:
        return Answer(lambda: response)
    return Answer(lambda: response, status=503, headers={"retry-after": "1"})


async def status(call: Call, body: Nothing) -> Answer:
    response: StatusResponse = {"models": [_model(status) for status in await call.backend.model_statuses()]}
    return Answer(lambda: response)


async def load(call: Call, body: Nothing) -> Answer:
    response: LoadResponse = {"models": [cast("ModelLoadResponse", asdict(load)) for load in await call.backend.model_loads()]}
    return Answer(lambda: response)


def _model(status: ModelStatus) -> ModelStatusResponse:
    return {
        "name": status.name,
        "role": status.role,
        "model": status.model,
        "available": status.available,
        "replicas": dict(status.replicas),
        "protocol": status.protocol,
    }


OPERATIONS = (
    Operation("GET", "/healthz", "Whether the process answers", Nothing, HealthResponse, healthz, right="open"),
    Operation(
        "GET",
        "/readyz",
        "Whether every deployment can serve: 200, or 503 with what is waited for",
        Nothing,
        ReadyResponse,
        readyz,
        right="open",
    ),
    Operation(
        "GET",
        "/v1/status",
        "The deployed models and the states of their replicas; wakes none",
        Nothing,
        StatusResponse,
        status,
        right="key",
    ),
    Operation("GET", "/v1/load", "What each model's running replicas have to do; wakes none", Nothing, LoadResponse, load, right="key"),
)
