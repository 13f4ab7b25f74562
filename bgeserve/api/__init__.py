"""The HTTP API: `create_app(backend, settings, keyring)`. Never imports models, stores or ray."""

from bgeserve.api.app import create_app

__all__ = ["create_app"]
