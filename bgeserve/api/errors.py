"""Exceptions to OpenAI's error body, `{"error": {"message", "type", "param", "code"}}`. Nothing else writes an error answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import ceil

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response
from typing_extensions import TypedDict

from bgeserve.errors import BgeServeError, Overloaded, RequestError, ServiceError, TextTooLong, Unauthorized, Unavailable

logger = logging.getLogger(__name__)

MAX_MESSAGE_CHARACTERS = 1000
MAX_PARAM_CHARACTERS = 200
"""Messages quote what was sent: nobody wants megabytes of it back."""


class ErrorDetail(TypedDict):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(TypedDict):
    error: ErrorDetail


def error_response(error: Exception) -> Response:
    """What the caller is told. An exception that nobody raised on purpose is logged and told apart by nothing but its status."""
    if isinstance(error, (RequestError, ServiceError)):
        return _respond(error.status, error.message, error.field, error.code, _headers(error))
    if isinstance(error, HTTPException):
        return _respond(error.status_code, error.detail, None, _HTTP_CODES[error.status_code], dict(error.headers or {}))
    logger.error("a request failed", exc_info=error)
    return _respond(500, "the service failed on this request; its log says why", None, BgeServeError.code, {})


def in_words_of(names: Mapping[str, str], error: Exception) -> Exception:
    """An error about a field of the backend, as one about the caller's field."""
    if isinstance(error, BgeServeError) and (name := names.get(error.field or "")):
        if isinstance(error, TextTooLong):
            return error.at(name, error.index)
        error.field = name
    return error


def _respond(status: int, message: str, param: str | None, code: str, headers: dict[str, str]) -> Response:
    if len(message) > MAX_MESSAGE_CHARACTERS:
        message = message[:MAX_MESSAGE_CHARACTERS] + "..."
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    body: ErrorBody = {"error": {"message": message, "type": kind, "param": param and param[:MAX_PARAM_CHARACTERS], "code": code}}
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


def _headers(error: BgeServeError) -> dict[str, str]:
    if isinstance(error, Unauthorized):
        return {"www-authenticate": "Bearer"}
    if isinstance(error, (Overloaded, Unavailable)):
        return {"retry-after": str(max(1, ceil(error.retry_after_s or 1)))}
    return {}


_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}
