"""A bearer key before everything else. Knows the keys and the paths that probes need without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hmac import compare_digest

from starlette.types import ASGIApp, Receive, Scope, Send

from bgeserve.api.error_format import OPENAI, ErrorFormat
from bgeserve.api.errors import error_response
from bgeserve.api.keys import ApiKey
from bgeserve.errors import Unauthorized

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz"})
"""The page at / holds nothing; it asks for the key and sends it with each of its own requests."""


class RequireKey:
    """ASGI middleware, so that a path which does not exist needs the key too."""

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey], forms: Mapping[str, ErrorFormat]) -> None:
        """forms: how a refusal looks, by path; elsewhere as OpenAI's."""
        self._app = app
        self._keys = [(key.secret.encode(), key) for key in keys]
        self._forms = forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = self._key_of(scope) if scope["type"] == "http" else None
        if key is not None:
            scope.setdefault("state", {}).update(key=key, key_id=key.name)
        if key is not None or scope["type"] != "http" or path_of(scope) in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        problem = Unauthorized("this service needs its API key: send the header 'authorization: Bearer KEY'")
        await error_response(problem, self._forms.get(path_of(scope), OPENAI))(scope, receive, send)

    def _key_of(self, scope: Scope) -> ApiKey | None:
        scheme, _, sent = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        # Each is compared, so that the time says nothing about which of them was nearly right.
        matching = [key for secret, key in self._keys if compare_digest(sent.strip(), secret)]
        return matching[0] if matching else None


def key_of(scope: Scope) -> ApiKey | None:
    """With which key a request came. None: the service has none, or this path needs none."""
    return scope.get("state", {}).get("key")


def path_of(scope: Scope) -> str:
    """As the operations know it, wherever the application is mounted."""
    return scope["path"].removeprefix(scope.get("root_path", ""))
