"""A data job's own embedders: a pool of actors that embed and hand their vectors to the owner of the service's collections, so that a large
job takes nothing from the deployed embedders. Chunks, vectors and the order of writes are as for a write through the service.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import cycle
from math import inf
from pathlib import Path
from typing import Any, cast

import ray
from ray import serve

from bgeserve.caller import A_JOB
from bgeserve.errors import SettingsError
from bgeserve.service import SearchService
from bgeserve.settings import SearchGraphSettings
from bgeserve.types import Document, WriteResult
from deployments.handles import RemoteRetriever
from deployments.states import DeploymentStates
from graphs.check import parse, read
from graphs.parts import RETRIEVER


def settings_of(config: Path, app: str) -> SearchGraphSettings:
    """What the application is deployed with. Raises SettingsError."""
    applications = {application.name: application for application in parse(read(config))[0].applications}
    if app not in applications or applications[app].import_path.replace(":", ".") != "graphs.search.build":
        raise SettingsError(f"{config} has no application {app!r} of graphs.search:build; it has {sorted(applications)}")
    return SearchGraphSettings.model_validate(applications[app].args)


class OwnEmbedders:
    """As many as fit are at work; Ray starts one that died again, and sends it what it had."""

    def __init__(self, count: int, settings: SearchGraphSettings, app: str) -> None:
        embedder = settings.embedders[settings.index_embedder]
        options = {"num_cpus": embedder.cpus, "num_gpus": embedder.gpus, "max_restarts": -1, "max_task_retries": -1}
        self._actors = [cast(Any, _Embedder).options(**options).remote(settings, app) for _ in range(count)]
        self._turns = cycle(self._actors)

    async def put_documents(self, collection: str, documents: Sequence[Document]) -> WriteResult:
        return await next(self._turns).put_documents.remote(collection, documents)


@ray.remote
class _Embedder:
    def __init__(self, settings: SearchGraphSettings, app: str) -> None:
        # Only the actors that compute pay for importing torch.
        from bgeserve.engine import EmbedderEngine

        name = settings.index_embedder
        # The job bounds what waits.
        engine = EmbedderEngine(name, settings.embedders[name].model_copy(update={"max_queue_s": inf}))
        retriever = RemoteRetriever(serve.get_deployment_handle(RETRIEVER, app), partial(DeploymentStates(app).runs, RETRIEVER))
        self._index = SearchService(engine, retriever, {}, settings.search).index

    async def put_documents(self, collection: str, documents: Sequence[Document]) -> WriteResult:
        return await self._index.put(collection, documents, truncate=True, caller=A_JOB)
