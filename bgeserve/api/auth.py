"""A bearer key before everything else. Knows the paths that need none, and where a key must not stand.

What the key may do is in `rights` and `keyed_backend`.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from bgeserve.api.error_format import OPENAI, ErrorFormat
from bgeserve.api.errors import error_response
from bgeserve.api.keyring import Keyring
from bgeserve.api.keys import Key
from bgeserve.errors import InvalidRequest, RequestError, Unauthorized

IN_URLS = frozenset({"api_key", "api-key", "apikey", "x-api-key", "key", "token", "access_token", "auth_token", "authorization", "bearer"})
"""What keys are called by those who put them into URLs; no operation has a parameter of such a name."""


class RequireKey:
    """ASGI middleware, so that a path which does not exist needs the key too."""

    def __init__(self, app: ASGIApp, keyring: Keyring | None, open_paths: frozenset[str], forms: Mapping[str, ErrorFormat]) -> None:
        """keyring: None where everybody may ask. forms: how a refusal looks, by path; elsewhere as OpenAI's."""
        self._app = app
        self._keyring = keyring
        self._open_paths = open_paths
        self._forms = forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                _refuse_key_in_url(scope["query_string"])
                self._admit(scope)
            except RequestError as problem:
                await error_response(problem, self._forms.get(path_of(scope), OPENAI))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        """Puts the key, and its `key_id`, where the rest of the request finds them. Raises Unauthorized."""
        if self._keyring is None:
            return
        sent = _bearer(scope)
        key = self._keyring.find(sent) if sent else None
        if key is not None and not key.is_expired():
            scope.setdefault("state", {}).update(key=key, key_id=key.id)
        elif path_of(scope) not in self._open_paths:
            raise Unauthorized(_problem(sent, key))


def key_of(scope: Scope) -> Key | None:
    """With which key a request came. None: the service has none, or this path needs none."""
    return scope.get("state", {}).get("key")


def path_of(scope: Scope) -> str:
    """As the operations know it, wherever the application is mounted."""
    return scope["path"].removeprefix(scope.get("root_path", ""))


def _bearer(scope: Scope) -> bytes:
    scheme, _, sent = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
    return sent.strip() if scheme.lower() == b"bearer" else b""


def _problem(sent: bytes, key: Key | None) -> str:
    if not sent:
        return "this service needs its API key: send the header 'authorization: Bearer KEY'"
    if key is None or key.expires_at is None:
        return "the API key is not valid: this service does not know it, or no longer"
    return f"the API key {key.id} has expired, at {key.expires_at.isoformat()}"


def _refuse_key_in_url(query_string: bytes) -> None:
    """Raises InvalidRequest, without the value: whoever wrote the URL into a log, a history or a referrer has the key."""
    names = {name.lower() for name, _ in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True)}
    if found := sorted(names & IN_URLS):
        raise InvalidRequest(
            f"{found[0]}: a key does not belong in a URL, which logs and browsers keep: revoke it if it was one, "
            "and send the header 'authorization: Bearer KEY'",
            field=found[0],
        )
