"""The page at `/`: a search box over this very API, for people. Knows no more than any other client."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response


async def playground(request: Request) -> Response:
    return HTMLResponse(_page())


@cache
def _page() -> str:
    return Path(__file__).with_name("playground.html").read_text(encoding="utf-8")
