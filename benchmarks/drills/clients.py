"""Who uses the service while it is struck: clients that search and embed, each answer kept and compared with the right one.

Half of the clients send again as our own client does; the others show what that hides. All pause between requests: the load is bounded.
Knows the client and what is asked, not what is broken.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic
from typing import Unpack

import numpy as np

from bgeserve.async_client import AsyncClient
from bgeserve.errors import BgeServeError
from bgeserve.types import Document, Float32Array
from bgeserve.wire import SearchOptions

COLLECTION = "fixed"
"""Nobody writes to it while the service is struck, so that a search has one right answer."""
PAUSE_S = (0.02, 0.1)
TIMEOUT_S = 30.0
"""What a request may take by default."""
TOLERANCE = 1e-3
"""Between two answers of the same model: batches differ, so floating point does."""

WORDS = ["amber", "basalt", "cedar", "delta", "ember", "flint", "garnet", "heron", "iris", "jasper", "kelp", "larch"]
DOCUMENTS = [Document(f"doc-{n}", " ".join(WORDS[n : n + 4] * (n + 1))) for n in range(8)]
QUERIES = [" ".join(WORDS[n : n + 3]) for n in range(8)]
FEW = [f"{word} and {other}" for word, other in pairwise(WORDS)]
MANY = [f"{FEW[n % len(FEW)]} {' '.join(WORDS * 3)} {n}" for n in range(26)]
"""Just so much that it goes over in two calls, to two replicas."""


@dataclass(frozen=True, slots=True)
class Question:
    """A search of one query, or what the vectors of some texts are."""

    query: str | None = None
    texts: Sequence[str] = ()

    async def ask(self, client: AsyncClient, **options: Unpack[SearchOptions]) -> Answer:
        if self.query is None:
            embeddings = await client.encode(self.texts)
            assert embeddings.dense is not None
            return Answer(embeddings.fingerprint, embeddings.dense)
        found = await client.search_many([self.query], collection=COLLECTION, top_k=len(DOCUMENTS), **options)
        scores = {hit.id: hit.score for hit in found.results[0]}
        # In the order of the ids: equal scores may come either way.
        return Answer(" ".join(sorted(scores)), np.array([scores[id] for id in sorted(scores)], np.float32), tuple(found.degraded))


@dataclass(frozen=True, slots=True)
class Answer:
    of: str
    """The model's fingerprint, or the ids that were found."""
    numbers: Float32Array
    degraded: Sequence[str] = ()

    def equals(self, other: Answer) -> bool:
        same = self.of == other.of and self.numbers.shape == other.numbers.shape
        return same and bool(np.allclose(self.numbers, other.numbers, atol=TOLERANCE))


Version = Mapping[Question, Answer]
"""What one version of the service answers to each question."""
SEARCHES = [Question(query) for query in QUERIES]
TEXTS = [Question(texts=tuple(some)) for some in (FEW[:1], FEW[1:4], FEW[4:], MANY)]


@dataclass(frozen=True, slots=True)
class Asked:
    question: Question
    retries: bool
    began_s: float
    ended_s: float
    answer: Answer | None
    error: BgeServeError | None


async def fill(url: str) -> None:
    async with AsyncClient(url, timeout_s=120) as client:
        await client.put_documents(DOCUMENTS, collection=COLLECTION)


async def right_answers(url: str, questions: Sequence[Question], **options: Unpack[SearchOptions]) -> Version:
    async with AsyncClient(url, timeout_s=120) as client:
        return {question: await question.ask(client, **options) for question in questions}


class Clients:
    def __init__(self, url: str, questions: Sequence[Question], count: int, seed: int) -> None:
        self._url = url
        self._questions = questions
        self._choose = [random.Random(f"{seed}-{n}") for n in range(count)]
        self._stopping = False
        self._latest_s = [0.0] * count
        """When that was sent which each client had its latest answer to."""
        self._news = asyncio.Event()
        self.asked: list[Asked] = []

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """Until the context ends and each has an answer to what it sent last."""
        self._stopping = False
        async with (
            AsyncClient(self._url, timeout_s=TIMEOUT_S, retry=False) as bare,
            AsyncClient(self._url, timeout_s=TIMEOUT_S) as retrying,
            asyncio.TaskGroup() as tasks,
        ):
            for n in range(len(self._choose)):
                tasks.create_task(self._use(n, retrying if n % 2 else bare, retries=bool(n % 2)))
            try:
                yield
            finally:
                self._stopping = True

    async def all_answered_since(self, instant_s: float) -> None:
        """Until each has an answer to something that it sent after this instant."""
        while min(self._latest_s) < instant_s:
            self._news.clear()
            await self._news.wait()

    async def _use(self, n: int, client: AsyncClient, *, retries: bool) -> None:
        choose = self._choose[n]
        while not self._stopping:
            question = choose.choice(self._questions)
            began_s, answer, error = monotonic(), None, None
            try:
                answer = await question.ask(client)
                self._latest_s[n] = began_s
                self._news.set()
            except BgeServeError as problem:
                error = problem
            self.asked.append(Asked(question, retries, began_s, monotonic(), answer, error))
            await asyncio.sleep(choose.uniform(*PAUSE_S))
