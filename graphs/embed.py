"""Embedders behind one ingress."""

# No `from __future__ import annotations` here: with it Ray would hand `build` a raw dict.
from ray.serve import Application

from bgeserve.settings import EmbedSettings
from graphs import parts


def build(settings: EmbedSettings) -> Application:
    return parts.ingress(settings.ingress, parts.embedders(settings.embedders), {}, None)
