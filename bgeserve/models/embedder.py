"""An embedder: texts to dense, lexical and multi-vector representations, all from one forward.

Knows checkpoints, tokens and vectors. Does not know queues, threads or HTTP: `tokenize` and `forward` may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bgeserve.catalog import EmbedderRow, Pooling, find_embedder
from bgeserve.errors import CheckpointError, InvalidRequest
from bgeserve.models import heads
from bgeserve.models.checkpoint import MULTI_VECTOR_HEAD, SPARSE_HEAD, Checkpoint, locate
from bgeserve.models.encoder import PackedEncoder
from bgeserve.models.fingerprint import fingerprint
from bgeserve.models.loading import limit_of, load_linear, load_tokenizer, load_transformer
from bgeserve.models.runtime import choose_device, choose_dtype
from bgeserve.models.tokenizing import Tokenizer, TokenSequence
from bgeserve.settings import EmbedderSettings, ModelSettings
from bgeserve.types import Float32Array, InputType, Output, SparseVector


@dataclass(frozen=True, slots=True)
class EmbedderInfo:
    model: str
    dimensions: int
    outputs: tuple[Output, ...]
    max_tokens: int
    fingerprint: str
    query_instruction: str
    """What stands before a query's text; empty for none."""


@dataclass(frozen=True, slots=True)
class Row:
    """The outputs of one text that were asked for."""

    dense: Float32Array | None = None
    """[dimensions], L2-normalised."""
    sparse: SparseVector | None = None
    multi_vector: Float32Array | None = None
    """[vectors, dimensions], each L2-normalised."""


@dataclass(frozen=True, slots=True)
class EmbedderHeads:
    pooling: Pooling
    sparse: nn.Linear | None = None
    multi_vector: nn.Linear | None = None

    @property
    def outputs(self) -> tuple[Output, ...]:
        heads_of: dict[Output, object] = {"dense": self.pooling, "sparse": self.sparse, "multi_vector": self.multi_vector}
        return tuple(output for output, head in heads_of.items() if head is not None)


class PackedEmbedder:
    def __init__(
        self, info: EmbedderInfo, tokenizer: Tokenizer, encoder: PackedEncoder, heads: EmbedderHeads, prefixes: Mapping[InputType, str]
    ) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self._encoder = encoder
        self._heads = heads
        self._prefixes = prefixes

    def tokenize(self, texts: Sequence[str], input_type: InputType = "document", truncate: bool = True) -> list[TokenSequence]:
        """Ids of each text with its instruction. Raises InvalidRequest: over the limit with truncate=False, or a lone surrogate."""
        prefix = self._prefixes[input_type]
        return self.tokenizer.encode([prefix + text for text in texts], truncate=truncate)

    @torch.inference_mode()
    def forward(self, sequences: Sequence[TokenSequence], outputs: Sequence[Collection[Output]]) -> list[Row]:
        """The outputs that each sequence asks for (`outputs`: one collection per sequence), from one pass through the transformer."""
        self.check_outputs({output for wanted in outputs for output in wanted})
        hidden, batch = self._encoder(sequences)
        asked = [outputs[i] for i in batch.order]
        found: dict[Output, list[Float32Array | SparseVector | None]] = {}
        for output in self.info.outputs:
            wanted = np.fromiter((output in a for a in asked), bool, len(asked))
            if wanted.any():
                computed = iter(self._compute(output, heads.TokenRows.select(hidden, batch, wanted)))
                found[output] = [next(computed) if w else None for w in wanted]
        rows: list[Row] = [Row()] * len(sequences)
        for packed, original in enumerate(batch.order):
            rows[original] = Row(**{output: values[packed] for output, values in found.items()})  # type: ignore[arg-type]
        return rows

    def token_vectors(self, sequences: Sequence[TokenSequence]) -> list[Tensor]:
        """Per sequence its vectors for late interaction, on the model's device: the multi-vector head's, else the hidden states' own."""
        hidden, batch = self._encoder(sequences)
        rows = heads.TokenRows(hidden, batch.ids, batch.lengths)
        head = self._heads.multi_vector
        packed = heads.token_vectors(rows) if head is None else heads.multi_vector(rows, head)
        return [packed[i] for i in np.argsort(batch.order)]

    def check_outputs(self, outputs: Collection[Output]) -> None:
        """Raises InvalidRequest on an output that the model does not have."""
        if missing := sorted(set(outputs) - set(self.info.outputs)):
            raise InvalidRequest(f"outputs has {missing}; {self.info.model} has {list(self.info.outputs)}", field="outputs")

    def _compute(self, output: Output, rows: heads.TokenRows) -> Sequence[Float32Array | SparseVector]:
        if output == "dense":
            return list(heads.pool(rows, self._heads.pooling).cpu().numpy())
        if output == "sparse":
            assert self._heads.sparse is not None
            return heads.lexical_weights(rows, self._heads.sparse, self.tokenizer.special_ids)
        assert self._heads.multi_vector is not None
        return [vectors.cpu().numpy() for vectors in heads.multi_vector(rows, self._heads.multi_vector)]


def load_embedder(settings: EmbedderSettings) -> PackedEmbedder:
    """Raises CheckpointError (the folder), SettingsError (the machine or the limits cannot give what the settings ask for)."""
    return load_embedder_of(settings, settings.query_instruction)


def load_embedder_of(settings: ModelSettings, query_instruction: str | None) -> PackedEmbedder:
    row = find_embedder(settings.model)
    device = choose_device(settings)
    checkpoint = Checkpoint.read(locate(settings.model, settings.revision), row.max_tokens if row else None)
    max_tokens = limit_of(settings, checkpoint)
    tokenizer = load_tokenizer(checkpoint, max_tokens)
    embedder_heads = _load_heads(checkpoint, row, device)
    prefixes = _prefixes(query_instruction, row, checkpoint)
    info = EmbedderInfo(
        model=settings.model,
        dimensions=checkpoint.hidden_size,
        outputs=embedder_heads.outputs,
        max_tokens=max_tokens,
        fingerprint=fingerprint(
            (*checkpoint.weight_files, *checkpoint.head_files),
            pooling=embedder_heads.pooling,
            dimensions=checkpoint.hidden_size,
            prefixes=tuple(prefixes.values()),
        ),
        query_instruction=prefixes["query"],
    )
    transformer = load_transformer(checkpoint, device, choose_dtype(settings.dtype, device))
    embedder = PackedEmbedder(info, tokenizer, PackedEncoder(transformer, checkpoint.positions, device), embedder_heads, prefixes)
    embedder.forward(embedder.tokenize(["a"]), [info.outputs])  # what the attention cannot do is refused here, not at the first request
    return embedder


def _load_heads(checkpoint: Checkpoint, row: EmbedderRow | None, device: torch.device) -> EmbedderHeads:
    """BGE-M3's two heads come together, whether the catalogue promises them or the folder of a fine-tuned M3 has them."""
    pooling = checkpoint.pooling or (row.pooling if row else None)
    promised = row is not None and "sparse" in row.outputs
    if promised or checkpoint.head_files:
        size = checkpoint.hidden_size
        return EmbedderHeads(
            pooling or "cls",
            sparse=load_linear(checkpoint.folder / SPARSE_HEAD, size, 1, device),
            multi_vector=load_linear(checkpoint.folder / MULTI_VECTOR_HEAD, size, None, device),
        )
    if pooling is None:
        raise CheckpointError(
            f"{checkpoint.folder} does not say how to pool: no modules.json with 1_Pooling/config.json, and no catalogue row of its name"
        )
    return EmbedderHeads(pooling)


def _prefixes(query_instruction: str | None, row: EmbedderRow | None, checkpoint: Checkpoint) -> dict[InputType, str]:
    """What stands before a text. A query's: the settings' instruction, else the catalogue's, else the folder's own prompt."""
    instruction = query_instruction
    if instruction is None:
        instruction = row.query_instruction if row else checkpoint.query_prompt or ""
    form = row.query_format if row else "{}{}"
    return {"query": form.format(instruction, "") if instruction else "", "document": row.document_instruction if row else ""}
