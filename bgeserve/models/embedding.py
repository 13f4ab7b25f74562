"""What every embedder in this folder is to its engine, and which of them computes: the packed one, or FlagEmbedding's own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from bgeserve.models.embedder import EmbedderInfo, Row, load_embedder
from bgeserve.models.scoring import Tokenized
from bgeserve.settings import EmbedderSettings
from bgeserve.types import EmbedderOptions, InputType, Output


class EmbeddingModel(Protocol):
    @property
    def info(self) -> EmbedderInfo: ...

    def tokenize(
        self, texts: Sequence[str], input_type: InputType = "document", truncate: bool = True, options: EmbedderOptions | None = None
    ) -> Sequence[Tokenized]:
        """One item per text. Raises InvalidRequest: over the limit with truncate=False; a lone surrogate; an option that does not fit."""
        ...

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """The characters of each token of a document. Raises InvalidRequest: a lone surrogate."""
        ...

    def forward(self, items: Sequence[Any], outputs: Sequence[Collection[Output]]) -> list[Row]:
        """The outputs that each item asks for, in the items' order."""
        ...

    def check_outputs(self, outputs: Collection[Output]) -> None:
        """Raises InvalidRequest on an output that the model does not have."""
        ...


def load_embedding_model(settings: EmbedderSettings) -> EmbeddingModel:
    """Raises CheckpointError (the folder), SettingsError (the machine or the limits cannot give what the settings ask for)."""
    if settings.engine == "flagembedding":
        # Only whoever asks for it pays for the import.
        from bgeserve.models.flagembedding import load_flag_embedder

        return load_flag_embedder(settings)
    return load_embedder(settings)
