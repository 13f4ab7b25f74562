"""A bearer key before everything else. Knows the key and the paths that probes need without one."""

from __future__ import annotations

from collections.abc import Mapping
from hmac import compare_digest

from starlette.types import ASGIApp, Receive, Scope, Send

from bgeserve.api.error_format import OPENAI, ErrorFormat
from bgeserve.api.errors import error_response
from bgeserve.errors import Unauthorized

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz"})
"""The page at / holds nothing; it asks for the key and sends it with each of its own requests."""


class RequireKey:
    """ASGI middleware, so that a path which does not exist needs the key too."""

    def __init__(self, app: ASGIApp, api_key: str, forms: Mapping[str, ErrorFormat]) -> None:
        """forms: how a refusal looks, by path; elsewhere as OpenAI's."""
        self._app = app
        self._key = api_key.encode()
        self._forms = forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._may_pass(scope):
            await self._app(scope, receive, send)
            return
        problem = Unauthorized("this service needs its API key: send the header 'authorization: Bearer KEY'")
        await error_response(problem, self._forms.get(path_of(scope), OPENAI))(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        if path_of(scope) in OPEN_PATHS:
            return True
        scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        return scheme.lower() == b"bearer" and compare_digest(key.strip(), self._key)


def path_of(scope: Scope) -> str:
    """As the operations know it, wherever the application is mounted."""
    return scope["path"].removeprefix(scope.get("root_path", ""))
