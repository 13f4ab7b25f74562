"""What an error answer says, and in which shape: a property of each operation, so that every dialect's clients read their own.

Knows the error tree and the shapes, not HTTP: a deployment handle answers in a dialect's shape too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import TypedDict

from bgeserve.errors import BgeServeError, RequestError, ServiceError, TextTooLong

MAX_MESSAGE_CHARACTERS = 1000
MAX_PARAM_CHARACTERS = 200
"""Messages quote what was sent: nobody wants megabytes of it back."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a caller is told, whatever the shape."""

    status: int
    message: str
    code: str
    param: str | None = None
    """The field that is wrong, as the caller calls it."""

    @classmethod
    def of(cls, error: RequestError | ServiceError) -> Problem:
        return cls(error.status, error.message, error.code, error.field)

    def brief(self) -> Problem:
        message = self.message if len(self.message) <= MAX_MESSAGE_CHARACTERS else self.message[:MAX_MESSAGE_CHARACTERS] + "..."
        return Problem(self.status, message, self.code, self.param and self.param[:MAX_PARAM_CHARACTERS])


@dataclass(frozen=True, slots=True)
class ErrorFormat:
    schema: Any
    """Of what `body` makes, for the description."""
    body: Callable[[Problem], object]


class ErrorDetail(TypedDict):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(TypedDict):
    error: ErrorDetail


def _openai_body(problem: Problem) -> ErrorBody:
    kind = _OPENAI_TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    return {"error": {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}}


_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
OPENAI = ErrorFormat(ErrorBody, _openai_body)
"""What every dialect speaks that has no shape of its own."""


def in_words_of(names: Mapping[str, str], error: Exception) -> Exception:
    """An error about a field of the backend, as one about the caller's field."""
    if isinstance(error, BgeServeError) and (name := names.get(error.field or "")):
        if isinstance(error, TextTooLong):
            return error.at(name, error.index)
        error.field = name
    return error
