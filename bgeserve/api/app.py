"""`create_app`: operations to routes. The life of a request, from its headers to its answer, is `_serve` in this file.

Knows HTTP and the list of dialects; what an operation means is in the dialects' files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, TypeVar, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from bgeserve.api import collections, health, model_server, native, openai, rerank
from bgeserve.api.auth import RequireKey, path_of
from bgeserve.api.encoding import IN_LOOP_BYTES, to_json
from bgeserve.api.error_format import OPENAI, ErrorFormat, in_words_of
from bgeserve.api.errors import error_response
from bgeserve.api.limits import deadline, read_body, while_client_waits
from bgeserve.api.openapi import openapi_operation
from bgeserve.api.operation import Call, Operation
from bgeserve.api.parsing import check_content_type, lane_of, parse_json, query_of, timeout_s_of
from bgeserve.api.playground import playground
from bgeserve.api.schema import Body, parse
from bgeserve.errors import SettingsError
from bgeserve.protocols import Backend
from bgeserve.settings import IngressSettings

B = TypeVar("B", bound=Body)

OPERATIONS: tuple[Operation[Any], ...] = (
    *native.OPERATIONS,
    *openai.OPERATIONS,
    *rerank.OPERATIONS,
    *model_server.OPERATIONS,
    *collections.OPERATIONS,
    *health.OPERATIONS,
)


def create_app(backend: Backend, settings: IngressSettings, *, api_key: str | None) -> Starlette:
    """The HTTP API over any backend. With a key, all but the page and the two routes for probes need it as a bearer token.

    Raises SettingsError for an empty key.
    """
    if api_key is not None and not api_key.strip():
        raise SettingsError("the API key is empty: leave it out to serve without one", field="api_key")
    operations = (*OPERATIONS, openapi_operation(OPERATIONS, key_needed=api_key is not None))
    paths = list(dict.fromkeys(operation.path for operation in operations))
    forms = {operation.path: operation.errors for operation in operations}
    middleware = [] if api_key is None else [Middleware(RequireKey, api_key=api_key, forms=forms)]

    def route(path: str) -> Route:
        here = [operation for operation in operations if operation.path == path]
        return Route(path, _endpoint(here, backend, settings), methods=[operation.method for operation in here])

    app = Starlette(
        routes=[Route("/", playground), *(route(path) for path in paths)],
        middleware=middleware,
        exception_handlers={404: _no_such_path, 405: partial(_no_such_method, forms)},
    )
    app.router.redirect_slashes = False
    return app


def _endpoint(
    operations: Sequence[Operation[Any]], backend: Backend, settings: IngressSettings
) -> Callable[[Request], Awaitable[Response]]:
    by_method = {operation.method: operation for operation in operations}

    async def endpoint(request: Request) -> Response:
        operation = by_method["GET" if request.method == "HEAD" else cast("Any", request.method)]
        try:
            return await _serve(operation, request, backend, settings)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:  # noqa: BLE001 (error_response logs what nobody raised on purpose)
            return error_response(in_words_of(operation.names, error), operation.errors)

    return endpoint


async def _serve(operation: Operation[Any], request: Request, backend: Backend, settings: IngressSettings) -> Response:
    timeout_s = timeout_s_of(request.headers, settings.timeout_s)
    call = Call(backend, settings, monotonic() + timeout_s, lane_of(request.headers), request.path_params)
    async with deadline(timeout_s):
        body = await _read(operation, request, settings)
        async with while_client_waits(request.receive):
            answer = await operation.handler(call, body)
            content = await to_json(answer)
    return Response(content, answer.status, dict(answer.headers), media_type="application/json")


async def _read(operation: Operation[B], request: Request, settings: IngressSettings) -> B:
    if operation.method == "GET":
        return parse(operation.request, query_of(request.query_params), settings, from_query_string=True)
    check_content_type(request.headers)
    body = await read_body(request, settings.max_body_bytes)
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
