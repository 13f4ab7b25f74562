"""A bearer key before everything else. Knows the key and the paths that probes need without one."""

from __future__ import annotations

from hmac import compare_digest

from starlette.types import ASGIApp, Receive, Scope, Send

from bgeserve.api.errors import error_response
from bgeserve.errors import Unauthorized

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz"})
"""The page at / holds nothing; it asks for the key and sends it with each of its own requests."""


class RequireKey:
    """ASGI middleware, so that a path which does not exist needs the key too."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._key = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._may_pass(scope):
            await self._app(scope, receive, send)
            return
        problem = Unauthorized("this service needs its API key: send the header 'authorization: Bearer KEY'")
        await error_response(problem)(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        if scope["path"].removeprefix(scope.get("root_path", "")) in OPEN_PATHS:
            return True
        scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        return scheme.lower() == b"bearer" and compare_digest(key.strip(), self._key)
