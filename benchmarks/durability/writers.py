"""Writers that put, replace and delete documents of their own over HTTP, whatever happens to the service meanwhile; and what the
service says afterwards of all that it has.

Knows the API and the clock. What the answers must add up to is in `truth.py`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from time import monotonic
from typing import Any

import httpx

from benchmarks.durability.truth import ABSENT, Stored, Truth, text_of

WRITERS = 16
DOCUMENTS_PER_WRITER = 40
"""Few, so that documents are replaced and deleted."""
DELETED_SHARE = 0.2
COLLECTION = "/v1/collections/default"
TIMEOUT_S = 60.0
"""Of one request, as the service is told."""
GIVE_UP_S = 240.0
"""Without an acknowledgement for so long, the service counts as gone for good."""
PAUSE_S = 0.05
"""After a refusal that does not say how long, and while nobody listens."""
PAGE = 200
HITS = 50


class Writers:
    def __init__(self, url: str, truth: Truth, seed: int, writers: int = WRITERS, pause_s: float = 0) -> None:
        """pause_s: of each writer after each answer."""
        self._truth = truth
        self._url = url
        self._pause_s = pause_s
        self._choose = [random.Random(f"{seed}-{writer}") for writer in range(writers)]
        self._version = 0
        self._stopping = False
        self._news = asyncio.Event()
        self._began_s = [0.0] * writers
        """When the write was sent that each writer's latest acknowledgement is for."""
        self.acknowledged_at: list[float] = []
        self.deletes = 0
        self.answers: Counter[str] = Counter()
        self.slowest_s = 0.0

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """All of them, until the context ends and each has an answer to what it sent last."""
        self._stopping = False
        async with httpx.AsyncClient(base_url=self._url, timeout=TIMEOUT_S + 5) as client, asyncio.TaskGroup() as tasks:
            for writer in range(len(self._choose)):
                tasks.create_task(self._write(client, writer))
            try:
                yield
            finally:
                self._stopping = True

    async def all_acknowledged_since(self, instant_s: float) -> None:
        """Until every writer has an acknowledgement of something that it sent after this instant. Raises TimeoutError."""
        async with asyncio.timeout(GIVE_UP_S):
            while min(self._began_s) < instant_s:
                self._news.clear()
                await self._news.wait()

    def longest_pause_s(self, since_s: float) -> float:
        """The longest time between two acknowledgements of anybody, of which the second came after this instant."""
        return max(later - earlier for earlier, later in pairwise(self.acknowledged_at) if later > since_s)

    async def _write(self, client: httpx.AsyncClient, writer: int) -> None:
        choose = self._choose[writer]
        while not self._stopping:
            ids = sorted({f"w{writer}-{choose.randrange(DOCUMENTS_PER_WRITER)}" for _ in range(choose.choice([1, 1, 5]))})
            self._version += 1
            version = ABSENT if choose.random() < DELETED_SHARE else self._version
            self._truth.begin(ids, version)
            began_s = monotonic()
            wait_s = await self._send(client, ids, version)
            self.slowest_s = max(self.slowest_s, monotonic() - began_s)
            if wait_s is None:
                self._truth.acknowledge(ids, version)
                self._began_s[writer] = began_s
                self.acknowledged_at.append(monotonic())
                self._news.set()
                self.deletes += version == ABSENT
            await asyncio.sleep(wait_s or self._pause_s)

    async def _send(self, client: httpx.AsyncClient, ids: Sequence[str], version: int) -> float | None:
        """None: acknowledged. Else how long to wait."""
        method, body = "DELETE", {"ids": list(ids)}
        if version != ABSENT:
            method, body = "PUT", {"documents": [{"id": id, "text": text_of(id, version)} for id in ids]}
        try:
            headers = {"x-timeout-ms": str(int(1000 * TIMEOUT_S))}
            answer = await client.request(method, f"{COLLECTION}/documents", json=body, headers=headers)
        except httpx.TransportError as error:
            self.answers[type(error).__name__] += 1
            return PAUSE_S
        retry_after = answer.headers.get("retry-after")
        self.answers[f"{answer.status_code}{' with retry-after' if retry_after else ''}"] += 1
        if answer.status_code == 200:
            return None
        return PAUSE_S if retry_after is None else float(answer.headers.get("retry-after-ms", 1000 * float(retry_after))) / 1000


async def read_all(url: str) -> Stored:
    """Raises httpx.HTTPStatusError when the service cannot tell."""
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:

        async def ask(method: str, path: str, **more: Any) -> Any:
            return (await client.request(method, path, **more)).raise_for_status().json()

        documents: list[tuple[str, str]] = []
        after: str | None = None
        while True:
            cursor = {} if after is None else {"after": after}
            page = await ask("GET", f"{COLLECTION}/documents", params={"limit": PAGE, **cursor})
            documents += [(document["id"], document["text"]) for document in page["documents"]]
            if (after := page["next"]) is None:
                break
        count = (await ask("GET", COLLECTION))["count"]
        search = {"query": "amber", "mode": "full_text", "top_k": HITS, "rerank": False}
        found = await ask("POST", "/v1/search", json=search)
        return Stored(documents, count, [(hit["id"], hit["text"]) for hit in found["results"]])
