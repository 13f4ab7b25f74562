"""Keys for tests, whose secrets are short and known."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from bgeserve.api.keyring import Keyring
from bgeserve.api.keys import Key, Row


def made_row(secret: str, name: str = "someone", **scope: Any) -> dict[str, Any]:
    return {"name": name, "sha256": sha256(secret.encode()).hexdigest(), **scope}


def made_key(secret: str, name: str = "someone", **scope: Any) -> Key:
    return Row(**made_row(secret, name, **scope)).key()


def keyring_of_keys(*keys: Key) -> Keyring:
    return Keyring(keys)


def signed(secret: str, **headers: str) -> dict[bytes, bytes]:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return {b"authorization": b"Bearer " + secret.encode(), **named}
