"""Who may ask: keys by name, from the environment or a mounted file, never from a config that is deployed.

Each key's name is its tenant: tenants share the models fairly, whatever one of them sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from bgeserve.errors import SettingsError
from bgeserve.settings import Name, Strict
from bgeserve.types import Lane

KEY_VARIABLE = "BGE_SERVE_API_KEY"
"""One key."""
KEYS_FILE_VARIABLE = "BGE_SERVE_API_KEYS_FILE"
"""A file (YAML or JSON) with a key and perhaps a lane per name: `nightly-job: {key: ..., lane: bulk}`."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    name: str
    secret: str = field(repr=False)
    lane: Lane | None = None
    """Of requests that state none."""


class _Entry(Strict):
    key: Annotated[str, Field(min_length=1, pattern=r"^\S+$")]
    lane: Lane | None = None


_ENTRIES = TypeAdapter(dict[Name, _Entry])


def keys_from(environment: Mapping[str, str]) -> tuple[ApiKey, ...]:
    """No keys: everybody may ask. Raises SettingsError, which never quotes a key."""
    keys: list[ApiKey] = []
    if KEY_VARIABLE in environment:
        secret = environment[KEY_VARIABLE].strip()
        if not secret:
            raise SettingsError(f"{KEY_VARIABLE} is empty: unset it to serve without a key", field=KEY_VARIABLE)
        keys.append(ApiKey("default", secret))
    if path := environment.get(KEYS_FILE_VARIABLE):
        keys += _read(Path(path))
    names, secrets = {key.name for key in keys}, {key.secret for key in keys}
    if len(names) < len(keys) or len(secrets) < len(keys):
        raise SettingsError(f"{KEYS_FILE_VARIABLE}: each name and each key may be there once; `default` is {KEY_VARIABLE}'s")
    return tuple(keys)


def _read(path: Path) -> list[ApiKey]:
    try:
        entries = _ENTRIES.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"{KEYS_FILE_VARIABLE}: {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SettingsError(f"{KEYS_FILE_VARIABLE}: {path} is not YAML") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False))
        raise SettingsError(f"{KEYS_FILE_VARIABLE}: {path}: {problems}") from None
    return [ApiKey(name, entry.key, entry.lane) for name, entry in entries.items()]
