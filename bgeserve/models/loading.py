"""From a checkpoint's files to modules and a tokenizer, checked on the way: what does not fit is refused by file and tensor.

Knows transformers' and torch's loaders. Does not know what the modules will compute.
"""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers import logging as transformers_logging

from bgeserve.errors import CheckpointError, SettingsError
from bgeserve.models import cuda_attention as _registers_attention  # noqa: F401  # pyright: ignore[reportUnusedImport]
from bgeserve.models.attention import choose_attention
from bgeserve.models.checkpoint import Checkpoint
from bgeserve.models.layer_scorer import scorer_class
from bgeserve.models.tokenizing import Tokenizer
from bgeserve.settings import ModelSettings

logger = logging.getLogger(__name__)

LEAST_MAX_TOKENS = 32
"""Below this, special tokens and a query leave no room for a passage."""


def limit_of(settings: ModelSettings, checkpoint: Checkpoint, reserved: int = 0) -> int:
    """The settings' max_tokens, as far as the model has positions; without one, what its files recommend.

    reserved: positions for what comes on top of the texts, such as a prompt.
    """
    most = checkpoint.most_tokens - reserved
    limit = settings.max_tokens or min(checkpoint.max_tokens, most)
    if not LEAST_MAX_TOKENS <= limit <= most:
        raise SettingsError(f"max_tokens is {limit}; {settings.model} takes {LEAST_MAX_TOKENS} to {most}", field="max_tokens")
    return limit


def load_tokenizer(checkpoint: Checkpoint, max_tokens: int) -> Tokenizer:
    tokenizer = Tokenizer(checkpoint.tokenizer_folder, max_tokens)
    if tokenizer.vocabulary_size > (rows := int(checkpoint.config["vocab_size"])):
        raise CheckpointError(
            f"{checkpoint.folder}: its tokenizer has {tokenizer.vocabulary_size} tokens, its config.json a vocab_size of {rows}"
        )
    return tokenizer


def load_transformer(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The bare transformer, without a pooler."""
    model = _from_pretrained(AutoModel, checkpoint, device, dtype, unused="pooler.")
    if hasattr(model, "pooler"):
        model.pooler = None
    return model


def load_classifier(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The sequence classifier; `base_model` is its encoder."""
    return _from_pretrained(AutoModelForSequenceClassification, checkpoint, device, dtype)


def load_causal_lm(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The language model; `base_model` is its transformer, `lm_head` a linear layer as wide as the vocabulary."""
    return _from_pretrained(AutoModelForCausalLM, checkpoint, device, dtype)


def load_layer_scorer(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A transformer (`model`) with a head for each of its upper layers (`lm_head`)."""
    kind, config = scorer_class(checkpoint.folder, checkpoint.config)
    return _from_pretrained(kind, checkpoint, device, dtype, config=config)


def load_linear(file: Path, in_features: int, out_features: int | None, device: torch.device) -> nn.Linear:
    """A head that is kept beside the checkpoint, in float32. Raises CheckpointError: missing, unreadable, or of another shape."""
    if not file.is_file():
        raise CheckpointError(f"{file} is missing")
    try:
        state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
        weight, bias = state["weight"], state["bias"]
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{file} does not hold a linear layer (weight, bias): {error}") from error
    expected = (out_features if out_features is not None else weight.shape[0], in_features)
    if tuple(weight.shape) != expected or tuple(bias.shape) != expected[:1]:
        raise CheckpointError(
            f"{file}: weight is {tuple(weight.shape)} and bias {tuple(bias.shape)}; expected {expected} and {expected[:1]}"
        )
    linear = nn.Linear(in_features, expected[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear.to(device).requires_grad_(False)


def _from_pretrained(
    kind: Any, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, *, unused: str | None = None, config: Any = None
) -> Any:
    size = sum(file.stat().st_size for file in checkpoint.weight_files)
    started = monotonic()
    logger.info("loading %s: %.2f GB in %d files", checkpoint.folder, size / 1e9, len(checkpoint.weight_files))
    try:
        with _quietly():
            model, report = kind.from_pretrained(
                checkpoint.folder,
                **({} if config is None else {"config": config}),
                dtype=dtype,
                attn_implementation=choose_attention(device, dtype, softcap=checkpoint.soft_caps_attention),
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{checkpoint.folder}: its weights cannot be loaded: {error}") from error
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise CheckpointError(f"{checkpoint.folder}: tensor {name} is {tuple(found)}; config.json says {tuple(expected)}")
    if missing := sorted(name for name in report["missing_keys"] if unused is None or not name.startswith(unused)):
        raise CheckpointError(
            f"{checkpoint.folder}: its weights lack {len(missing)} tensors of {type(model).__name__}: {', '.join(missing[:3])}"
        )
    if checkpoint.adapter is not None:
        model = _merged(model, checkpoint.adapter)
    model.config.use_cache = False  # keys and values are for generating, which nobody does here
    model = model.to(device).eval().requires_grad_(False)
    logger.info("loaded %s as %s on %s in %.1f s", checkpoint.folder, dtype, device, monotonic() - started)
    return model


def _merged(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Its weights would otherwise stay random, with no more than a warning.
            warnings.filterwarnings("error", message=".*missing adapter keys")
            return PeftModel.from_pretrained(model, str(adapter), local_files_only=True).merge_and_unload()
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError, UserWarning) as error:
        raise CheckpointError(f"{adapter}: this adapter does not fit {type(model).__name__}: {error}") from error


@contextmanager
def _quietly() -> Generator[None]:
    """What matters of transformers' report is raised by name; what else it prints (an unused pooler, a progress bar) is noise in a log."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
