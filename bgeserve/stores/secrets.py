"""Secrets of stores, from the environment: a config names the variable and never holds the secret."""

from __future__ import annotations

import os

from bgeserve.errors import StoreError


def secret(variable: str | None, setting: str) -> str:
    """Empty when no variable is named. Raises StoreError when the named one is not set."""
    if variable is None:
        return ""
    if not (value := os.environ.get(variable)):
        raise StoreError(f"store.{setting} names the environment variable {variable!r}, which is not set here", field=setting)
    return value
