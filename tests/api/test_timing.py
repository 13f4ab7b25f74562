"""The header `server-timing` says where a request's time went."""

from __future__ import annotations

import re

import httpx
import pytest


@pytest.mark.parametrize(
    ("path", "body", "stages"),
    [
        ("/v1/encode", {"input": "a"}, set()),
        ("/v1/embeddings", {"input": "a"}, set()),
        ("/v1/rerank", {"query": "a", "documents": ["a"]}, set()),
        ("/v1/search", {"query": "a"}, {"embed", "retrieve"}),
    ],
)
async def test_every_part_is_within_the_total(http: httpx.AsyncClient, path: str, body: object, stages: set[str]) -> None:
    header = (await http.post(path, json=body)).headers["server-timing"]
    timings_ms = {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", header)}
    assert timings_ms.keys() >= {"read", "answer", "render", "total"} | stages
    assert timings_ms["read"] + timings_ms["answer"] + timings_ms["render"] <= timings_ms["total"] + 0.02
