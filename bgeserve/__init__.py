"""bge-serve: BGE embedders and rerankers on Ray Serve, composed into one search service."""

from bgeserve.async_client import AsyncClient
from bgeserve.client import Client

__all__ = ["AsyncClient", "Client"]
