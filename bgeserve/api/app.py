"""`create_app`: operations to routes. The life of a request, from its headers to its answer, is `_serve` in this file.

Knows HTTP and the list of dialects; what an operation means is in the dialects' files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from bgeserve import tracing
from bgeserve.api import collections, health, model_server, names, native, openai, rerank, transfer
from bgeserve.api.access_log import HUNG_UP, AccessLog, Entry, entry_of, name_of
from bgeserve.api.admission import ByteBudget, Held
from bgeserve.api.auth import RequireKey, key_of, path_of
from bgeserve.api.encoding import IN_LOOP_BYTES, to_json
from bgeserve.api.error_format import OPENAI, ErrorFormat, in_words_of
from bgeserve.api.errors import error_response
from bgeserve.api.keyed_backend import KeyedBackend
from bgeserve.api.keyring import Keyring
from bgeserve.api.limits import deadline, read_body, while_client_waits
from bgeserve.api.openapi import openapi_operation
from bgeserve.api.operation import Call, Operation
from bgeserve.api.parsing import check_content_type, lane_of, parse_json, query_of, timeout_s_of
from bgeserve.api.playground import playground
from bgeserve.api.rights import check_right
from bgeserve.api.schema import Body, Nothing, parse
from bgeserve.api.timing import Timer
from bgeserve.api.token_buckets import TokenBuckets
from bgeserve.backend import Backend
from bgeserve.deadline import Deadline
from bgeserve.errors import BgeServeError
from bgeserve.settings import IngressSettings

B = TypeVar("B", bound=Body)

OPERATIONS: tuple[Operation[Any], ...] = (
    *native.OPERATIONS,
    *openai.OPERATIONS,
    *rerank.OPERATIONS,
    *model_server.OPERATIONS,
    *collections.OPERATIONS,
    *names.OPERATIONS,
    *transfer.OPERATIONS,
    *health.OPERATIONS,
)


def create_app(
    backend: Backend, settings: IngressSettings, keyring: Keyring | None = None, *, answers_request_id: bool = True
) -> Starlette:
    """The HTTP API over any backend. With a keyring, all but the page and the two probes need one of its keys as a bearer token.

    answers_request_id: False where the server around the app puts `x-request-id` into every answer itself.
    """
    operations = (*OPERATIONS, openapi_operation(OPERATIONS, key_needed=keyring is not None))
    door = Door(backend, settings, ByteBudget(settings.max_inflight_bytes), TokenBuckets())
    paths = list(dict.fromkeys(operation.path for operation in operations))
    forms = {operation.path: operation.errors for operation in operations}
    # The page holds nothing; it asks for the key and sends it with each of its own requests.
    open_paths = frozenset({"/", *(operation.path for operation in operations if operation.right == "open")})

    def route(path: str) -> Route:
        here = [operation for operation in operations if operation.path == path]
        return Route(path, _endpoint(here, door), methods=[operation.method for operation in here])

    app = Starlette(
        routes=[Route("/", playground), *(route(path) for path in paths)],
        middleware=[
            Middleware(AccessLog, answers_request_id=answers_request_id),
            Middleware(RequireKey, keyring=keyring, open_paths=open_paths, forms=forms),
        ],
        exception_handlers={404: _no_such_path, 405: partial(_no_such_method, forms)},
    )
    app.router.redirect_slashes = False
    return app


@dataclass(frozen=True, slots=True)
class Door:
    """What all requests share."""

    backend: Backend
    settings: IngressSettings
    budget: ByteBudget
    buckets: TokenBuckets


def _endpoint(operations: Sequence[Operation[Any]], door: Door) -> Callable[[Request], Awaitable[Response]]:
    by_method = {operation.method: operation for operation in operations}

    async def endpoint(request: Request) -> Response:
        operation = by_method["GET" if request.method == "HEAD" else cast("Any", request.method)]
        entry = entry_of(request.scope)
        entry.route = operation.path
        with tracing.request(f"{operation.method} {operation.path}", request.headers, entry.request_id) as span:
            response = await _answer(operation, request, door, entry)
            span.ended(response.status_code, entry.error)
        return response

    return endpoint


async def _answer(operation: Operation[Any], request: Request, door: Door, entry: Entry) -> Response:
    try:
        return await _serve(operation, request, door, entry)
    except ClientDisconnect:
        return Response(status_code=HUNG_UP)
    except Exception as error:  # noqa: BLE001 (error_response logs what nobody raised on purpose)
        entry.error = getattr(error, "code", BgeServeError.code)
        return error_response(in_words_of(operation.names, error), operation.errors)


async def _serve(operation: Operation[Any], request: Request, door: Door, entry: Entry) -> Response:
    timer = Timer()
    timeout_s = timeout_s_of(request.headers, door.settings.timeout_s)
    call = _call(request, door, timeout_s)
    check_right(operation.right, call.key, f"{operation.method} {operation.path}")
    async with deadline(timeout_s):
        with door.budget.request(call.tenant) as held:
            body = await _read(operation, request, door.settings, held)
            timer.lap("read")
            entry.lane, entry.model = call.lane or "", name_of(getattr(body, "model", None))
            entry.collection = name_of(call.path.get("collection") or getattr(body, "collection", None))
            async with while_client_waits(request.receive):
                answer = await operation.handler(call, body)
                timer.lap("answer")
                content = await to_json(answer)
                timer.lap("render")
    entry.stages_ms = timer.stages_ms(answer.timings_ms)
    entry.model, entry.tokens, entry.degraded = answer.model or entry.model, answer.tokens, answer.degraded
    headers = {**answer.headers, "server-timing": timer.header(entry.stages_ms)}
    return Response(content, answer.status, headers, media_type="application/json")


def _call(request: Request, door: Door, timeout_s: float) -> Call:
    key = key_of(request.scope)
    lane = lane_of(request.headers) or (key.lane if key else None)
    backend = KeyedBackend(door.backend, key, door.buckets) if key else door.backend
    return Call(backend, door.settings, Deadline(timeout_s), lane, key, request.path_params)


async def _read(operation: Operation[B], request: Request, settings: IngressSettings, held: Held) -> B:
    if operation.method == "GET":
        return parse(operation.request, query_of(request.query_params), settings, from_query_string=True)
    check_content_type(request.headers)
    body = await read_body(request, settings.max_body_bytes, settings.body_timeout_s, held)
    if operation.request is Nothing and not body:
        return parse(operation.request, query_of(request.query_params), settings, from_query_string=True)
    if len(body) <= IN_LOOP_BYTES:
        return parse(operation.request, parse_json(body), settings)
    return await asyncio.to_thread(lambda: parse(operation.request, parse_json(body), settings))


async def _no_such_path(request: Request, error: Exception) -> Response:
    problem = f"there is nothing at {request.url.path}; GET /openapi.json lists what there is"
    return error_response(HTTPException(404, problem))


async def _no_such_method(forms: Mapping[str, ErrorFormat], request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allowed = dict(error.headers or {})
    problem = f"{request.url.path} takes {allowed.get('Allow')}, not {request.method}"
    return error_response(HTTPException(405, problem, allowed), forms.get(path_of(request.scope), OPENAI))
