"""A replica that embeds: `EmbedderEngine` behind a deployment handle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ray import serve

from bgeserve.caller import Caller
from bgeserve.chunking import Span
from bgeserve.model_load import ModelLoad
from bgeserve.settings import EmbedderSettings
from bgeserve.types import Chunking, EmbedderOptions, Embeddings, InputType, ModelInfo, Output
from deployments.joined import AnswersJoined
from deployments.replica import answers_refusals, observer, prepare_replica


@serve.deployment()
class EmbedderDeployment(AnswersJoined):
    def __init__(self, name: str, settings: EmbedderSettings) -> None:
        super().__init__()
        prepare_replica()
        # Only the replicas that compute pay for importing torch.
        from bgeserve.engine import EmbedderEngine

        self._engine = EmbedderEngine(name, settings, observer(model=name))

    async def info(self) -> ModelInfo:
        return await self._engine.info()

    @answers_refusals
    async def encode(
        self,
        texts: Sequence[str],
        *,
        outputs: Sequence[Output],
        input_type: InputType,
        options: EmbedderOptions | None = None,
        truncate: bool,
        caller: Caller,
    ) -> Embeddings:
        return await self._engine.encode(texts, outputs=outputs, input_type=input_type, options=options, truncate=truncate, caller=caller)

    @answers_refusals
    async def chunk(self, texts: Sequence[str], chunking: Chunking) -> list[list[Span]]:
        return await self._engine.chunk(texts, chunking)

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
