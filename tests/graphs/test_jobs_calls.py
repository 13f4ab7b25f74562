"""Calls of a data job, against the real service in this process: what is refused is found, and what passes is waited for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from bgeserve.errors import BgeServeError, FingerprintMismatch, InvalidRequest, Overloaded, StaleWrite, Unavailable
from bgeserve.types import Document, WriteResult
from graphs.jobs_calls import put
from tests.api.backend import MAX_TOKENS, Stage

DOCUMENTS = [Document(f"d{n}", f"text number {n}") for n in range(21)]


class Failing:
    """Raises these, one a call, and then lets the others pass."""

    def __init__(self, stage: Stage, *failures: BgeServeError) -> None:
        self._stage = stage
        self._failures = list(failures)
        self.calls = 0

    async def __call__(self, documents: Sequence[Document]) -> WriteResult:
        self.calls += 1
        if self._failures:
            raise self._failures.pop(0)
        return await self._stage.service.put_documents("c", documents)


async def stored(stage: Stage) -> set[str]:
    found, _ = await stage.service.scroll_documents("c", limit=100, after=None)
    return {document.id for document in found}


async def test_one_document_that_is_refused_keeps_no_other_out() -> None:
    stage = Stage()
    too_long = [Document(f"long{n}", "word " * (MAX_TOKENS + 1)) for n in range(2)]
    outcome = await put(partial(stage.service.put_documents, "c", truncate=False), [*too_long[:1], *DOCUMENTS, *too_long[1:]])
    assert [document for document, _ in outcome.refused] == too_long
    assert all("truncate is false" in why for _, why in outcome.refused)
    assert outcome.written.upserted == len(DOCUMENTS)
    assert await stored(stage) == {document.id for document in DOCUMENTS}


@pytest.mark.parametrize("passing", [Overloaded("full", retry_after_s=0.01), StaleWrite("restarted", retry_after_s=0.01)])
async def test_what_passes_is_waited_for(passing: BgeServeError) -> None:
    stage = Stage()
    send = Failing(stage, passing, passing)
    assert (await put(send, DOCUMENTS)).written.upserted == len(DOCUMENTS)
    assert send.calls == 3


async def test_what_does_not_pass_in_time_is_raised() -> None:
    send = Failing(Stage(), *[Unavailable("gone", retry_after_s=0.02)] * 100)
    with pytest.raises(Unavailable):
        await put(send, DOCUMENTS, retry_s=0.05)
    assert 1 < send.calls < 10


@pytest.mark.parametrize("error", [FingerprintMismatch("another model"), InvalidRequest("a bad name", field="collection")])
async def test_what_no_document_would_escape_is_raised_at_once(error: BgeServeError) -> None:
    send = Failing(Stage(), error)
    with pytest.raises(type(error)):
        await put(send, DOCUMENTS)
    assert send.calls == 1
