"""bge-serve: BGE embedders and rerankers on Ray Serve, composed into one search service."""

from bgeserve.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
