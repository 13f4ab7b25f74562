"""What FlagEmbedding's loop makes of its two layer rerankers, which it cannot construct under transformers 5: transformers' model of
the same weights on padded batches.

As its inference/reranker/decoder_only/{layerwise,lightweight}.py with no cutoff and no compression: sorted by length, longest first,
padded to a multiple of 8 (the first on the left, the second on the right), all layers, every layer's state kept, and the last head;
the first batch is computed twice, once to see that it fits. It runs on ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.timing import CORES
from bgeserve.models.checkpoint import Checkpoint
from bgeserve.models.layer_scorer import scorer_class

PAD_TO_MULTIPLE_OF = 8


def padded_loop(folder: Path, sequences: Sequence[NDArray[np.int32]], batch_size: int) -> Callable[[], list[float]]:
    checkpoint = Checkpoint.read(folder)
    kind, config = scorer_class(folder, checkpoint.config)
    # Soft caps are there only in eager attention, as FlagEmbedding's own class has it too.
    attention = "eager" if checkpoint.soft_caps_attention else "sdpa"
    model: Any = kind.from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation=attention).eval()
    model.config.use_cache = False
    on_the_left = not checkpoint.soft_caps_attention
    by_length = sorted(sequences, key=len, reverse=True)
    batches = [_pad(by_length[i : i + batch_size], on_the_left) for i in range(0, len(by_length), batch_size)]
    batches.insert(0, batches[0])

    @torch.no_grad()
    def run() -> list[float]:
        torch.set_num_threads(CORES)
        scores: list[float] = []
        for ids, mask in batches:
            output = model.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            logits = model.lm_head[-1].linear_head(output.last_hidden_state)[..., 0]
            ends = -torch.ones(len(ids), dtype=torch.long) if on_the_left else mask.sum(dim=1) - 1
            scores += logits[torch.arange(len(ids)), ends].tolist()
        return scores[batch_size:]

    return run


def _pad(sequences: Sequence[NDArray[np.int32]], on_the_left: bool) -> tuple[Tensor, Tensor]:
    longest = max(map(len, sequences))
    shape = (len(sequences), -(-longest // PAD_TO_MULTIPLE_OF) * PAD_TO_MULTIPLE_OF)
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        own = slice(-len(sequence), None) if on_the_left else slice(0, len(sequence))
        ids[row, own] = torch.from_numpy(sequence.astype(np.int64))
        mask[row, own] = 1
    return ids, mask
