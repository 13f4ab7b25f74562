"""Embed -> retrieve -> rerank, behind one ingress."""

# No `from __future__ import annotations` here: with it Ray would hand `build` a raw dict.
from ray.serve import Application

from bgeserve.settings import SearchGraphSettings
from deployments.ingress import Index
from graphs import parts


def build(settings: SearchGraphSettings) -> Application:
    embedders = parts.embedders(settings.embedders)
    retriever = parts.retriever(settings.store, embedders, settings.index_embedder)
    index = Index(retriever, settings.index_embedder, settings.search)
    return parts.ingress(settings.ingress, embedders, parts.rerankers(settings.rerankers), index)
