from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bgeserve.protocols import Retriever
from bgeserve.retrieval import StoreRetriever
from tests.retrieval.owner import settings


@pytest.fixture
async def retriever(tmp_path: Path) -> AsyncIterator[Retriever]:
    retriever = StoreRetriever(settings(tmp_path))
    yield retriever
    await retriever.close()
