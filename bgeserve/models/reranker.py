"""Which reranker a checkpoint is, and how it is loaded. What each kind computes is in the file of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bgeserve.catalog import RerankerKind, find_reranker
from bgeserve.models.checkpoint import Checkpoint
from bgeserve.models.cross_encoder import load_cross_encoder
from bgeserve.models.gpu_memory import hold_to_share
from bgeserve.models.hub import locate
from bgeserve.models.layer_reranker import load_layer_reranker
from bgeserve.models.llm_reranker import load_llm_reranker
from bgeserve.models.runtime import choose_device, choose_dtype
from bgeserve.models.scoring import OptionRules, Scorer
from bgeserve.models.vector_scoring import load_vector_scorer
from bgeserve.settings import RerankerSettings

_LOADERS: Mapping[RerankerKind, Callable[..., Scorer[Any]]] = {
    "cross_encoder": load_cross_encoder,
    "llm": load_llm_reranker,
    "layerwise": load_layer_reranker,
    "lightweight": load_layer_reranker,
}


def load_reranker(settings: RerankerSettings) -> tuple[Scorer[Any], OptionRules]:
    """Raises CheckpointError (the folder), SettingsError (the machine or the limits cannot give what the settings ask for)."""
    scorer = _load(settings)
    rules = OptionRules(scorer.info, settings)
    # What the attention cannot do is refused here, not at the first request.
    scorer.forward(scorer.tokenize("a", ["a"], rules.resolve(None)))
    return scorer, rules


def _load(settings: RerankerSettings) -> Scorer[Any]:
    if settings.engine == "flagembedding":
        # Only whoever asks for it pays for the import.
        from bgeserve.models.flagembedding import load_flag_scorer

        return load_flag_scorer(settings)
    if settings.scoring != "own":
        return load_vector_scorer(settings)
    row = find_reranker(settings.like or settings.model)
    device = choose_device(settings)
    checkpoint = Checkpoint.read(locate(settings.model, settings.revision), row.max_tokens if row else None)
    dtype = choose_dtype(settings.dtype, device)
    hold_to_share(settings, checkpoint, device, dtype)
    return _LOADERS[checkpoint.reranker_kind](settings, checkpoint, device, dtype)
