"""A service whose embedders sleep what a forward would cost: replicas of theirs add capacity even where all share two cores.

Everything else is the product: ingress, calls, lanes, queues, refusals, what replicas say of their load, and who decides how many there
are. `build` is a graph as those in `graphs/`, for a Serve config's `import_path: benchmarks.autoscale.paced:build`.
"""

# No `from __future__ import annotations` here: with it Ray would hand `build` a raw dict.
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field, PositiveFloat
from ray import serve
from ray.serve import Application

from bgeserve.chunking import Span
from bgeserve.settings import EmbedderSettings, IngressSettings, RerankerSettings
from bgeserve.strict import Name, Strict
from bgeserve.types import EmbedderOptions, InputType, Output
from deployments.embedder import EmbedderDeployment
from deployments.ingress import Model
from deployments.joined import AnswersJoined
from deployments.replica import observer, prepare_replica
from graphs import parts

DIMENSIONS = 8
MAX_TOKENS = 8192
TOKEN = "word "
"""What counts as one."""


class PacedSettings(Strict):
    embedders: dict[Name, EmbedderSettings]
    """`workers: 1`, or each of them computes at the whole speed."""
    rerankers: dict[Name, RerankerSettings] = Field(default_factory=dict)
    """The product's own, not paced."""
    tokens_per_s: PositiveFloat
    """Of one replica."""
    by_requests: dict[str, Any] | None = None
    """Ray's own `autoscaling_config` for the embedders, in place of ours."""
    ingress: IngressSettings = IngressSettings()


def build(settings: PacedSettings) -> Application:
    embedders = {name: Model(_bound(name, model, settings), model) for name, model in settings.embedders.items()}
    return parts.ingress(settings.ingress, embedders, parts.rerankers(settings.rerankers), None)


def _bound(name: str, model: EmbedderSettings, settings: PacedSettings) -> Application:
    options = parts.model_options(model)
    if settings.by_requests is not None:
        options["autoscaling_config"] = settings.by_requests
    return PacedEmbedder.options(name=f"embedder-{name}", **options).bind(name, model, settings.tokens_per_s)


@dataclass(frozen=True, slots=True)
class Words:
    cost: int
    truncated: bool = False


class PacedModel:
    """Implements `models.embedding.EmbeddingModel`."""

    def __init__(self, tokens_per_s: float) -> None:
        from bgeserve.models.embedder import EmbedderInfo

        self._tokens_per_s = tokens_per_s
        self.info = EmbedderInfo("paced", "paced", "cls", DIMENSIONS, ("dense",), MAX_TOKENS, "paced", ())

    def tokenize(
        self, texts: Sequence[str], input_type: InputType = "document", truncate: bool = True, options: EmbedderOptions | None = None
    ) -> list[Words]:
        return [Words(max(1, len(text) // len(TOKEN))) for text in texts]

    def token_spans(self, text: str) -> list[Span]:
        return [(start, min(start + len(TOKEN), len(text))) for start in range(0, len(text), len(TOKEN))]

    def forward(self, items: Sequence[Words], outputs: Sequence[Collection[Output]]) -> list[Any]:
        from bgeserve.models.embedder import Row

        time.sleep(sum(item.cost for item in items) / self._tokens_per_s)
        return [Row(dense=np.full(DIMENSIONS, DIMENSIONS**-0.5, np.float32)) for _ in items]

    def check_outputs(self, outputs: Collection[Output]) -> None:
        assert set(outputs) <= {"dense"}, outputs


@serve.deployment()
class PacedEmbedder(EmbedderDeployment.func_or_class):  # type: ignore[misc]
    def __init__(self, name: str, settings: EmbedderSettings, tokens_per_s: float) -> None:
        AnswersJoined.__init__(self)
        prepare_replica()
        from bgeserve.engine import EmbedderEngine

        self._engine = EmbedderEngine(name, settings, observer(model=name), load=lambda _: PacedModel(tokens_per_s))
