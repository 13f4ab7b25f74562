"""Rerankers behind one ingress."""

# No `from __future__ import annotations` here: with it Ray would hand `build` a raw dict.
from ray.serve import Application

from bgeserve.settings import RerankSettings
from graphs import parts


def build(settings: RerankSettings) -> Application:
    return parts.ingress(settings.ingress, {}, parts.rerankers(settings.rerankers), None)
