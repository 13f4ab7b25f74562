"""API keys: what a row of the keys file says, and how a key that was sent is found among them. Knows no HTTP.

A row never holds the key, only its SHA-256. A slow hash is for passwords, which can be guessed: nobody guesses the 256 random bits that
`new_key` draws, however fast each guess is, and a slow one would cost every request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated

import yaml
from pydantic import AwareDatetime, Field, PositiveFloat, TypeAdapter, ValidationError, model_validator

from bgeserve.errors import Forbidden, SettingsError
from bgeserve.strict import Name, Strict
from bgeserve.types import Lane

PREFIX = "bge_"
"""By which people and secret scanners know a key when they see one."""
RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    """Stands for the key in logs and errors, and tells nothing of it."""
    name: str
    """Its tenant: tenants share the models fairly. Several keys may have one name, so that one can follow the other."""
    digest: bytes = field(repr=False)
    lane: Lane | None = None
    """Of requests that state none."""
    models: tuple[str, ...] | None = None
    collections: tuple[str, ...] | None = None
    admin: bool = False
    read_only: bool = False
    tokens_per_s: float | None = None
    expires_at: datetime | None = None

    def is_expired(self) -> bool:
        return self.expires_at is not None and datetime.now(UTC) >= self.expires_at

    def may_use_model(self, name: str) -> bool:
        return _matches(name, self.models)

    def may_use_collection(self, name: str) -> bool:
        return _matches(name, self.collections)

    def check_model(self, name: str) -> str:
        """The name. Raises Forbidden."""
        if not self.may_use_model(name):
            raise Forbidden(f"model {name!r}: the key {self.id} is for {', '.join(self.models or ())} alone", field="model")
        return name

    def check_collection(self, name: str) -> str:
        """The name. Raises Forbidden."""
        if not self.may_use_collection(name):
            problem = f"collection {name!r}: the key {self.id} is for {', '.join(self.collections or ())} alone"
            raise Forbidden(problem, field="collection")
        return name


def find(keys: Sequence[Key], sent: bytes) -> Key | None:
    """Whose key was sent. Every row is compared, in constant time, so that how long it takes says nothing about any of them."""
    digest = digest_of(sent)
    matching = [key for key in keys if compare_digest(key.digest, digest)]
    return matching[0] if matching else None


def digest_of(key: bytes) -> bytes:
    return sha256(key).digest()


def new_key() -> str:
    return PREFIX + token_urlsafe(RANDOM_BYTES)


def _matches(name: str, patterns: tuple[str, ...] | None) -> bool:
    return patterns is None or any(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) for pattern in patterns)


# -- rows ------------------------------------------------------------------------------------------------------------------------------

Patterns = Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9*][A-Za-z0-9._@*-]{0,127}$")], ...], Field(min_length=1)]


class Row(Strict):
    """One key, as a line of the keys file."""

    name: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    lane: Lane | None = None
    models: Patterns | None = None
    """Names that requests may give as `model`; `*` stands for any characters. None: all."""
    collections: Patterns | None = None
    """Collections and aliases, likewise. An alias counts with its own name and with that of what it points to."""
    admin: bool = False
    """Whether it may do what concerns a whole collection, or names: make, delete, point aliases, export, import, copy."""
    read_only: bool = False
    """Whether it may neither store nor delete documents."""
    tokens_per_s: PositiveFloat | None = None
    """At each ingress replica, approximately."""
    expires_at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _rights_agree(self) -> Row:
        if self.admin and self.read_only:
            raise ValueError("admin and read_only are both true: a key that may delete a collection is not read-only")
        return self

    def key(self) -> Key:
        scope = {
            name: getattr(self, name) for name in ("lane", "models", "collections", "admin", "read_only", "tokens_per_s", "expires_at")
        }
        # Eight digits of the hash tell the keys of one name apart, and are of no help in finding 256 bits.
        return Key(f"{self.name}-{self.sha256[:8]}", self.name, bytes.fromhex(self.sha256), **scope)


_ROWS = TypeAdapter(list[Row])


def read_keys(path: Path) -> list[Key]:
    """Raises SettingsError, which never quotes what is in the file."""
    try:
        return parse_keys(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not YAML") from None


def parse_keys(text: str, where: str) -> list[Key]:
    """Raises SettingsError, which says `where` and never quotes the text."""
    try:
        rows = _ROWS.validate_python(yaml.safe_load(text))
    except yaml.YAMLError:
        raise SettingsError(f"{where} is not YAML") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in error.errors(include_input=False))
        raise SettingsError(f"{where}: {problems} (`bge-serve keys new NAME` makes a row)") from None
    if len({row.sha256 for row in rows}) < len(rows):
        raise SettingsError(f"{where}: each key may be there once, and one sha256 is there twice")
    return [row.key() for row in rows]
