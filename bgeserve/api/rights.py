"""What a request must be allowed to do: the one table of rights. Every operation states which of them it needs.

Which models and collections a key is for is checked where they are asked for, in `keyed_backend`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from bgeserve.api.keys import Key
from bgeserve.errors import Forbidden

Right = Literal["open", "key", "model", "read", "write", "admin"]

RIGHTS: Mapping[Right, str] = {
    "open": "nobody needs a key",
    "key": "any key; of lists, what the key is for",
    "model": "a key for the model that the request names",
    "read": "a key for the collection",
    "write": "a key for the collection that is not `read_only`",
    "admin": "a key for the collection with `admin: true`",
}


def check_right(needed: Right, key: Key | None, what: str) -> None:
    """`what`: the operation, for the message. A service without keys (None) lets everybody do everything. Raises Forbidden."""
    if key is None:
        return
    if needed == "write" and key.read_only:
        raise Forbidden(f"the key {key.id} is read_only; {what} writes")
    if needed == "admin" and not key.admin:
        raise Forbidden(f"the key {key.id} has no `admin: true`, which {what} needs")
