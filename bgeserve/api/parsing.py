"""HTTP's own parts of a request (headers, query string, JSON text) to plain Python values. Knows no operation."""

from __future__ import annotations

import orjson
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException

from bgeserve.errors import InvalidRequest
from bgeserve.quoting import brief
from bgeserve.types import LANES, Lane

MAX_TIMEOUT_MS = 3_600_000


def timeout_s_of(headers: Headers, default_s: float) -> float:
    sent = headers.get("x-timeout-ms")
    if sent is None:
        return default_s
    # isdecimal() lets digits of every script through; int() of a very long row of them is slow.
    if not (sent.isascii() and sent.isdecimal() and len(sent) <= 9 and 1 <= int(sent) <= MAX_TIMEOUT_MS):
        raise InvalidRequest(
            f"x-timeout-ms must be a whole number from 1 to {MAX_TIMEOUT_MS} (milliseconds), not {brief(sent)}", field="x-timeout-ms"
        )
    return int(sent) / 1000


def lane_of(headers: Headers) -> Lane | None:
    sent = headers.get("x-lane")
    if sent is not None and sent not in LANES:
        raise InvalidRequest(f"x-lane must be one of {', '.join(LANES)}, not {brief(sent)}", field="x-lane")
    return sent


def query_of(parameters: QueryParams) -> dict[str, object]:
    """A name that is given once has a string, one that is repeated a list of strings."""
    values = {name: parameters.getlist(name) for name in parameters}
    return {name: given[0] if len(given) == 1 else given for name, given in values.items()}


def check_content_type(headers: Headers) -> None:
    sent = headers.get("content-type", "application/json")
    kind, _, parameters = sent.lower().partition(";")
    charset = parameters.strip().removeprefix("charset=").strip('"')
    if kind.strip() != "application/json" or charset not in ("", "utf-8"):
        raise HTTPException(415, f"content-type must be application/json (in UTF-8), not {brief(sent)}")
    if (coding := headers.get("content-encoding", "identity")) != "identity":
        raise HTTPException(415, f"content-encoding must be identity (no compression), not {brief(coding)}")


def parse_json(body: bytes) -> object:
    """Raises InvalidRequest, saying where; NaN, infinities and lone surrogates are no JSON either."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _not_json(body, error) from None


def _not_json(body: bytes, error: orjson.JSONDecodeError) -> InvalidRequest:
    """Says where, and quotes nothing: what stands there may be a text."""
    try:
        text = body.decode()
    except UnicodeDecodeError as problem:
        return InvalidRequest(f"the body is not UTF-8: byte {problem.start} is 0x{body[problem.start]:02x}", field="body")
    if not text:
        return InvalidRequest("the body is empty: it must be a JSON object", field="body")
    return InvalidRequest(f"the body is not JSON: {error}", field="body")
