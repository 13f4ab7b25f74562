"""Exceptions to error answers, in the shape of the operation's dialect. Nothing else writes an error answer."""

from __future__ import annotations

import logging
from math import ceil

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

from bgeserve.api.error_format import OPENAI, ErrorFormat, Problem
from bgeserve.errors import BgeServeError, Overloaded, RequestError, ServiceError, SlowBody, Unauthorized, Unavailable

logger = logging.getLogger(__name__)


def error_response(error: Exception, form: ErrorFormat = OPENAI) -> Response:
    """What the caller is told. An exception that nobody raised on purpose is logged and told apart by nothing but its status."""
    if isinstance(error, (RequestError, ServiceError)):
        return _respond(Problem.of(error), form, _headers(error))
    if isinstance(error, HTTPException):
        problem = Problem(error.status_code, error.detail, _HTTP_CODES[error.status_code])
        return _respond(problem, form, dict(error.headers or {}))
    logger.error("a request failed", exc_info=error)
    return _respond(Problem(500, "the service failed on this request; its log says why", BgeServeError.code), form, {})


def _respond(problem: Problem, form: ErrorFormat, headers: dict[str, str]) -> Response:
    return Response(orjson.dumps(form.body(problem.brief())), problem.status, headers, media_type="application/json")


def _headers(error: BgeServeError) -> dict[str, str]:
    if isinstance(error, Unauthorized):
        return {"www-authenticate": "Bearer"}
    if isinstance(error, SlowBody):
        return {"connection": "close"}  # the rest of the body may still come, and is no next request
    if isinstance(error, (Overloaded, Unavailable)):
        retry_after_s = error.retry_after_s or 1.0
        # Whole seconds are what HTTP has; the second header is OpenAI's, whose clients prefer it.
        return {"retry-after": str(max(1, ceil(retry_after_s))), "retry-after-ms": str(max(1, round(1000 * retry_after_s)))}
    return {}


_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}
