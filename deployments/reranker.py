"""A replica that reranks: `RerankerEngine` behind a deployment handle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ray import serve

from bgeserve.caller import Caller
from bgeserve.model_load import ModelLoad
from bgeserve.settings import RerankerSettings
from bgeserve.types import ModelInfo, RerankerOptions, Scores
from deployments.joined import AnswersJoined
from deployments.replica import answers_refusals, observer, prepare_replica


@serve.deployment()
class RerankerDeployment(AnswersJoined):
    def __init__(self, name: str, settings: RerankerSettings) -> None:
        super().__init__()
        prepare_replica()
        # Only the replicas that compute pay for importing torch.
        from bgeserve.engine import RerankerEngine

        self._engine = RerankerEngine(name, settings, observer(model=name))

    async def info(self) -> ModelInfo:
        return await self._engine.info()

    @answers_refusals
    async def rerank(
        self,
        query: str,
        passages: Sequence[str],
        *,
        options: RerankerOptions | None = None,
        truncate: bool,
        caller: Caller,
    ) -> Scores:
        return await self._engine.rerank(query, passages, options=options, truncate=truncate, caller=caller)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What Serve hands to `scaling.BacklogPolicy`, as a series of each name."""
        return asdict(self._engine.load())

    async def current_load(self) -> ModelLoad:
        return await self._engine.current_load()

    def check_health(self) -> None:
        self._engine.check_health()

    def __del__(self) -> None:
        # Serve calls this when it stops a replica; a constructor that failed has nothing to close.
        if hasattr(self, "_engine"):
            self._engine.close()
