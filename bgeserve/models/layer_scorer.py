"""The two rerankers with a head at every layer, as transformers' classes hold them: MiniCPM is Granite by other names (its three scale
factors are Granite's multipliers), CostWiseGemma is Gemma2.

Knows configurations and parameter names. Does not know how the layers are run (`layer_loop.py`). Sources: FlagEmbedding's
inference/reranker/decoder_only/models/{modeling_minicpm_reranker,gemma_model}.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Gemma2Config, Gemma2Model, GraniteConfig, GraniteModel, PretrainedConfig
from transformers.models.gemma2.modeling_gemma2 import Gemma2PreTrainedModel
from transformers.models.granite.modeling_granite import GranitePreTrainedModel

from bgeserve.errors import CheckpointError

_SAME_IN_GRANITE = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "attention_bias", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


class _Head(nn.Module):
    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear_head = nn.Linear(hidden_size, 1, bias=False)


def _heads(config: Any) -> nn.Module:
    if not config.head_multi:
        return _Head(config.hidden_size)
    layers = range(config.start_layer, config.num_hidden_layers + 1, config.layer_sep)
    return nn.ModuleList(_Head(config.hidden_size) for _ in layers)


class GraniteLayerScorer(GranitePreTrainedModel):
    def __init__(self, config: GraniteConfig) -> None:
        super().__init__(config)
        self.model = GraniteModel(config)
        self.lm_head = _heads(config)
        self.post_init()


class Gemma2LayerScorer(Gemma2PreTrainedModel):
    def __init__(self, config: Gemma2Config) -> None:
        super().__init__(config)
        self.model = Gemma2Model(config)
        self.lm_head = _heads(config)
        self.post_init()


def scorer_class(folder: Path, config: Mapping[str, Any]) -> tuple[type[Any], PretrainedConfig]:
    """Class and configuration for a layer-cutoff reranker's config.json. Raises CheckpointError for a variant with other heads."""
    _refuse_other_variants(folder / "config.json", config)
    if config["model_type"] == "minicpm":
        return GraniteLayerScorer, _granite_config(config)
    return Gemma2LayerScorer, Gemma2Config.from_dict({**config, "head_multi": True, "tie_word_embeddings": False})


def _granite_config(config: Mapping[str, Any]) -> GraniteConfig:
    heads: dict[str, Any] = {"start_layer": config.get("start_layer", 8), "layer_sep": 1, "head_multi": config.get("head_multi", True)}
    return GraniteConfig(
        **{name: config[name] for name in _SAME_IN_GRANITE if name in config},
        **heads,
        rope_parameters={"rope_type": "default", "rope_theta": config.get("rope_theta", 10_000.0)},
        embedding_multiplier=config.get("scale_emb", 1),
        residual_multiplier=config.get("scale_depth", 1) / config["num_hidden_layers"] ** 0.5,
        attention_multiplier=(config["hidden_size"] // config["num_attention_heads"]) ** -0.5,
    )


def _refuse_other_variants(file: Path, config: Mapping[str, Any]) -> None:
    known = {"head_type": "simple", "layer_wise": True, "rope_scaling": None}
    for name, value in known.items():
        if config.get(name, value) != value:
            raise CheckpointError(f"{file}: {name} is {config[name]!r}; only {value!r} is known here")
