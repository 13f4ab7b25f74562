"""An embedder: texts to dense, lexical and multi-vector representations, all from one forward.

Knows checkpoints, tokens and vectors. Does not know queues, threads or HTTP: `tokenize` and `forward` may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from bgeserve.catalog import EmbedderRow, Pooling, find_embedder
from bgeserve.errors import CheckpointError, InvalidRequest, SettingsError, TextTooLong
from bgeserve.models import heads
from bgeserve.models.checkpoint import Checkpoint, head_files_of
from bgeserve.models.encoder import PackedEncoder
from bgeserve.models.fingerprint import fingerprint
from bgeserve.models.gpu_memory import hold_to_share
from bgeserve.models.hub import MULTI_VECTOR_HEAD, SPARSE_HEAD, locate
from bgeserve.models.loading import limit_of, load_linear, load_tokenizer, load_transformer
from bgeserve.models.query_prompt import QueryPrompt
from bgeserve.models.runtime import choose_device, choose_dtype
from bgeserve.models.tokenizing import Tokenizer, TokenSequence
from bgeserve.settings import EmbedderSettings, ModelSettings
from bgeserve.types import EmbedderOptions, Example, Float32Array, InputType, Output, SparseVector


@dataclass(frozen=True, slots=True)
class EmbedderInfo:
    model: str
    family: str
    pooling: Pooling
    dimensions: int
    outputs: tuple[Output, ...]
    max_tokens: int
    fingerprint: str
    options: tuple[str, ...]
    """Fields of EmbedderOptions that it takes."""


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
    token_states: bool = False
    """Whether hidden states stand in for what a multi-vector head would give."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        heads_of: dict[Output, object] = {
            "dense": self.pooling,
            "sparse": self.sparse,
            "multi_vector": self.multi_vector or self.token_states,
        }
        return tuple(output for output, head in heads_of.items() if head)


class PackedEmbedder:
    def __init__(
        self,
        info: EmbedderInfo,
        tokenizer: Tokenizer,
        encoder: PackedEncoder,
        heads: EmbedderHeads,
        query_prompt: QueryPrompt,
        document_prefix: str,
        most_tokens: int,
    ) -> None:
        """`most_tokens`: positions that the model has, which a query with examples before it may fill."""
        self.info = info
        self.tokenizer = tokenizer
        self._encoder = encoder
        self._heads = heads
        self._query_prompt = query_prompt
        self._document_prefix = document_prefix
        self._most_tokens = most_tokens

    def tokenize(
        self,
        texts: Sequence[str],
        input_type: InputType = "document",
        truncate: bool = True,
        options: EmbedderOptions | None = None,
    ) -> list[TokenSequence]:
        """Ids of each text with its instruction. Raises InvalidRequest: over the limit with truncate=False; a lone surrogate; an option
        that this model, or a document, does not take."""
        if input_type == "document":
            refuse_query_options(options)
            return self.tokenizer.encode([self._document_prefix + text for text in texts], truncate=truncate)
        prompt = self._query_prompt if options is None else self._query_prompt.with_options(options, self.info.model)
        queries = [prompt.prefix + text for text in texts]
        return self._surrounded(queries, prompt, truncate) if prompt.surrounds else self.tokenizer.encode(queries, truncate=truncate)

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return self.tokenizer.spans(text)

    def _surrounded(self, queries: Sequence[str], prompt: QueryPrompt, truncate: bool) -> list[TokenSequence]:
        """Each query with examples before and a suffix after it; the limit holds for query and suffix, as FlagEmbedding's does (icl.py)."""
        (suffix,) = self.tokenizer.body_ids([prompt.suffix], self._most_tokens, "suffix")
        room = self.info.max_tokens - self.tokenizer.special_tokens - len(suffix)
        cuts = [self.tokenizer.cut(query, room, "texts") for query in queries]
        if not truncate and (long := [i for i, (_, was_cut) in enumerate(cuts) if was_cut]):
            raise TextTooLong("texts", long[0], room + 1, room)
        examples = prompt.shown_examples()
        sequences = self.tokenizer.encode_whole([examples + query + prompt.suffix for query, _ in cuts])
        if (longest := max(map(len, sequences), default=0)) > self._most_tokens:
            raise InvalidRequest(
                f"examples and query have {longest} tokens; {self.info.model} has positions for {self._most_tokens}", field="examples"
            )
        return [TokenSequence(ids, was_cut) for ids, (_, was_cut) in zip(sequences, cuts, strict=True)]

    @torch.inference_mode()
    def forward(self, items: Sequence[TokenSequence], outputs: Sequence[Collection[Output]]) -> list[Row]:
        """The outputs that each item asks for (`outputs`: one collection per item), from one pass through the transformer."""
        self.check_outputs({output for wanted in outputs for output in wanted})
        hidden, batch = self._encoder(items)
        asked = [outputs[i] for i in batch.order]
        found: dict[Output, list[Float32Array | SparseVector | None]] = {}
        for output in self.info.outputs:
            wanted = np.fromiter((output in a for a in asked), bool, len(asked))
            if wanted.any():
                computed = iter(self._compute(output, heads.TokenRows.select(hidden, batch, wanted)))
                found[output] = [next(computed) if w else None for w in wanted]
        rows: list[Row] = [Row()] * len(items)
        for packed, original in enumerate(batch.order):
            rows[original] = Row(**{output: values[packed] for output, values in found.items()})  # type: ignore[arg-type]
        return rows

    def token_vectors(self, sequences: Sequence[TokenSequence]) -> list[Tensor]:
        """Per sequence its vectors for late interaction, on the model's device: the multi-vector head's, else the hidden states' own."""
        hidden, batch = self._encoder(sequences)
        packed = self._token_vectors(heads.TokenRows(hidden, batch.ids, batch.lengths))
        return [packed[i] for i in np.argsort(batch.order)]

    def check_outputs(self, outputs: Collection[Output]) -> None:
        """Raises InvalidRequest on an output that the model does not have."""
        check_outputs(self.info, outputs)

    def _compute(self, output: Output, rows: heads.TokenRows) -> Sequence[Float32Array | SparseVector]:
        if output == "dense":
            return list(heads.pool(rows, self._heads.pooling).cpu().numpy())
        if output == "sparse":
            assert self._heads.sparse is not None
            return heads.lexical_weights(rows, self._heads.sparse, self.tokenizer.special_ids)
        return [vectors.cpu().numpy() for vectors in self._token_vectors(rows)]

    def _token_vectors(self, rows: heads.TokenRows) -> list[Tensor]:
        head = self._heads.multi_vector
        return heads.token_vectors(rows) if head is None else heads.multi_vector(rows, head)


def check_outputs(info: EmbedderInfo, outputs: Collection[Output]) -> None:
    if missing := sorted(set(outputs) - set(info.outputs)):
        raise InvalidRequest(f"outputs has {missing}; {info.model} has {list(info.outputs)}", field="outputs")


def refuse_query_options(options: EmbedderOptions | None) -> None:
    """Raises InvalidRequest: instruction and examples are for queries alone."""
    for name in ("instruction", "examples"):
        if options is not None and getattr(options, name) is not None:
            raise InvalidRequest(f"{name} is for queries, not for documents: set input_type to query, or leave it out", field=name)


def load_embedder(settings: EmbedderSettings) -> PackedEmbedder:
    """Raises CheckpointError (the folder), SettingsError (the machine or the limits cannot give what the settings ask for)."""
    examples = [Example(one.query, one.response, one.instruction) for one in settings.examples]
    return load_embedder_of(settings, settings.query_instruction, examples, settings.token_states)


def load_embedder_of(
    settings: ModelSettings, query_instruction: str | None, examples: Sequence[Example] = (), token_states: bool = False
) -> PackedEmbedder:
    row = find_embedder(settings.like or settings.model)
    device = choose_device(settings)
    checkpoint = Checkpoint.read(locate(settings.model, settings.revision), row.max_tokens if row else None)
    dtype = choose_dtype(settings.dtype, device)
    hold_to_share(settings, checkpoint, device, dtype)
    tokenizer = load_tokenizer(checkpoint, limit_of(settings, checkpoint))
    embedder_heads = replace(_load_heads(checkpoint, row, device), token_states=token_states)
    if token_states and embedder_heads.multi_vector is not None:
        raise SettingsError(
            f"token_states is true, but {settings.model} was trained to give token vectors: leave it out", field="token_states"
        )
    prompt = QueryPrompt.of(row, query_instruction, checkpoint.query_prompt, examples)
    if examples and not prompt.example_format:
        raise SettingsError(f"examples has {len(examples)}; {settings.model} takes none, only an instruction", field="examples")
    document_prefix = row.document_instruction if row else ""
    info = EmbedderInfo(
        model=settings.model,
        family=checkpoint.family,
        pooling=embedder_heads.pooling,
        dimensions=checkpoint.hidden_size,
        outputs=embedder_heads.outputs,
        max_tokens=tokenizer.max_tokens,
        fingerprint=fingerprint(
            checkpoint.content_files,
            pooling=embedder_heads.pooling,
            dimensions=checkpoint.hidden_size,
            prefixes=(prompt.prefix, document_prefix),
        ),
        options=("instruction", "examples") if prompt.example_format else ("instruction",),
    )
    encoder = PackedEncoder(load_transformer(checkpoint, device, dtype), checkpoint.positions, device)
    embedder = PackedEmbedder(info, tokenizer, encoder, embedder_heads, prompt, document_prefix, checkpoint.most_tokens)
    embedder.forward(embedder.tokenize(["a"]), [info.outputs])  # what the attention cannot do is refused here, not at the first request
    return embedder


def _load_heads(checkpoint: Checkpoint, row: EmbedderRow | None, device: torch.device) -> EmbedderHeads:
    """BGE-M3's two heads come together, whether the catalogue promises them or the folder of a fine-tuned M3 has them."""
    pooling = checkpoint.pooling or (row.pooling if row else None) or ("last_token" if checkpoint.is_causal else None)
    promised = row is not None and "sparse" in row.outputs
    if promised or head_files_of(checkpoint.folder):
        size = checkpoint.hidden_size
        return EmbedderHeads(
            "cls" if pooling is None else pooling,
            sparse=load_linear(checkpoint.folder / SPARSE_HEAD, size, 1, device),
            multi_vector=load_linear(checkpoint.folder / MULTI_VECTOR_HEAD, size, None, device),
        )
    if pooling is None:
        raise CheckpointError(
            f"{checkpoint.folder} does not say how to pool: no modules.json with 1_Pooling/config.json, and no catalogue row of its name"
        )
    return EmbedderHeads(pooling)
