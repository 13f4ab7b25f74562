"""Writes layerwise.json and lightweight.json: what FlagEmbedding's own two layer-cutoff rerankers score on our tiny checkpoints.

Run by hand, in an environment of its own, because neither class constructs under transformers 5:

    .venv/bin/python -m tests.decoder_checkpoints /tmp/checkpoints                # the project's environment makes the checkpoints
    python3.11 -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.13.0 transformers==4.46.3 FlagEmbedding==1.4.2
    /tmp/golden/bin/python tests/golden/make_golden.py /tmp/checkpoints tests/golden

On CPU in float32, one pair at a time: upstream sorts and pads batches, so the largest difference in batches of 8 is recorded beside.
The ids that upstream built are recorded too: they tell a difference of tokenising from one of arithmetic.

Lightweight scores are of all heads at once, for upstream takes head i for the i-th layer of the list, which is the layer's own head only
then. They are there for `eager` attention, which is Gemma2's definition, and for `sdpa`, which this class takes by default under
transformers 4.46 and which leaves attn_logit_softcapping out without a word.
"""

from __future__ import annotations

import hashlib
import json
import platform
import random
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from FlagEmbedding import LayerWiseFlagLLMReranker, LightWeightFlagLLMReranker
from FlagEmbedding.inference.reranker.decoder_only.models.gemma_model import CostWiseGemma2PreTrainedModel

MAX_LENGTH = 96
PROMPTS = {
    "layerwise": "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a prediction "
    "of either 'Yes' or 'No'.",
    "lightweight": "Predict whether passage B contains an answer to query A.",
    "custom": "Is passage B about what query A asks for?",
}
WORDS = """
how do I parse command line arguments the quick brown fox read and write gzip compressed files one at a time temporary directory
deleted afterwards vectors rerankers score pairs 今天天气很好 我们去公园散步。 搜索系统 النص العربي من اليمين إلى اليسار
खोज इंजन दस्तावेज़ ภาษาไทย naïve café, 20.5 % Пример текста zlib.compress(data, level) 🙂 ∑ €
"""
PAIRS = [
    ("word", "word"),
    ("how do I parse command line arguments", ""),
    ("", "The quick brown fox jumps over the lazy dog."),
    ("", ""),
    ("x", "y"),  # a passage shorter than every ratio but 1 and 2
    ("parse", "a b"),
    ("今天天气很好", "今天天气很好，我们去公园散步。"),
    ("搜索系统", "向量检索和重排序是搜索系统的两个阶段。"),
    ("النص العربي", "النص العربي يُكتب من اليمين إلى اليسار"),
    ("खोज इंजन", "खोज इंजन दस्तावेज़ों को क्रम देता है"),
    ("ภาษาไทย", "ภาษาไทยเขียนโดยไม่มีช่องว่างระหว่างคำ"),
    ("emoji 🙂", "👩\u200d👩\u200d👧\u200d👦 emoji 🙂 and symbols ∑ ≈ € 🏳️\u200d🌈 🇳🇱"),
    ("right to left", "\u202eright-to-left mark\u202c and \u200fmore"),
    ("zero width", "zero\u200bwidth\u200djoin\ufeff"),
    ("NUL \x00", "NUL \x00 and bell \x07"),
    ("combining", "combining e\u0301 \u0301 alone, Hangul 한국어 \u1112\u1161\u11ab"),
    ("line breaks", "line\r\nbreaks\u2028and\u2029paragraphs\x85here\n\n\tand tabs"),
    ("   spaces   ", "   \t\n "),
    ("special", "<unk> special <mask> tokens [CLS] in {braces} the text {} %s"),
    ("read and write files " * 40, "Read and write gzip compressed files, one at a time or many."),
    ("read and write files", "Read and write gzip compressed files, one at a time or many. " * 20),
    ("read and write files " * 40, "Read and write gzip compressed files, one at a time or many. " * 20),
    ("哈" * 200, "哈" * 200),
    ("a" * 150, "b" * 300),
]


def ragged(count: int, seed: int = 0) -> list[tuple[str, str]]:
    random_ = random.Random(seed)
    words = WORDS.split()
    return [
        (" ".join(random_.choices(words, k=random_.randint(1, 12))), " ".join(random_.choices(words, k=random_.randint(1, 60))))
        for _ in range(count)
    ]


class Scorer:
    """An upstream reranker, with an ear on the ids that its model gets."""

    def __init__(self, reranker: Any) -> None:
        self.reranker = reranker
        self.seen: list[int] = []
        assert {parameter.dtype.__str__() for parameter in reranker.model.parameters()} == {"torch.float32"}
        reranker.model.register_forward_pre_hook(self._listen, with_kwargs=True)

    def _listen(self, _module: Any, _arguments: Any, keywords: dict[str, Any]) -> None:
        ids, mask = keywords["input_ids"][0], keywords["attention_mask"][0]
        self.seen = ids[mask.bool()].tolist()

    def input_ids(self, pairs: list[tuple[str, str]], **options: Any) -> list[list[int]]:
        ids = []
        for pair in pairs:
            self.reranker.compute_score([pair], batch_size=1, max_length=MAX_LENGTH, **options)
            ids.append(self.seen)
        return ids

    def case(self, pairs: list[tuple[str, str]], prompt: str, layers: list[int], **options: Any) -> dict[str, Any]:
        """Scores by layer, then by pair."""

        def scores(batch_size: int) -> list[list[float]]:
            found = self.reranker.compute_score(
                pairs, batch_size=batch_size, max_length=MAX_LENGTH, cutoff_layers=layers, prompt=PROMPTS[prompt], **options
            )
            return [found] if len(layers) == 1 else found

        alone, together = scores(1), scores(8)
        difference = max(abs(a - b) for one, other in zip(alone, together, strict=True) for a, b in zip(one, other, strict=True))
        assert difference < 1e-4, difference
        assert len(alone) == len(layers)
        rounded = [[float(f"{score:.7g}") for score in layer] for layer in alone]
        return {
            "prompt": prompt,
            "cutoff_layers": layers,
            **options,
            "difference_in_batches_of_8": float(f"{difference:.2g}"),
            "scores": rounded,
        }


def layerwise(folder: Path, pairs: list[tuple[str, str]]) -> tuple[Scorer, list[dict[str, Any]]]:
    scorer = Scorer(LayerWiseFlagLLMReranker(str(folder), use_fp16=True, devices="cpu"))  # on CPU upstream keeps float32
    layers = cutoff_layers(folder)
    chosen = [*([layer] for layer in layers), layers, [layers[0], layers[-1]]]
    cases = [scorer.case(pairs, "layerwise", some) for some in chosen]
    return scorer, [*cases, scorer.case(pairs, "custom", layers)]


def lightweight(folder: Path, pairs: list[tuple[str, str]], attention: str) -> tuple[Scorer, list[dict[str, Any]]]:
    CostWiseGemma2PreTrainedModel._supports_sdpa = attention == "sdpa"
    scorer = Scorer(LightWeightFlagLLMReranker(str(folder), use_fp16=True, devices="cpu"))  # on CPU upstream keeps float32
    assert scorer.reranker.model.config._attn_implementation == attention
    layers = cutoff_layers(folder)
    compressed = [(where, ratio) for where in ([3], [3, 5]) for ratio in (2, 4, 8)]
    cases = [
        scorer.case(pairs, "lightweight", layers, compress_layers=where, compress_ratio=ratio) for where, ratio in [([3], 1), *compressed]
    ]
    cases.append(scorer.case(pairs, "custom", layers, compress_layers=[3], compress_ratio=2))
    return scorer, [{"attention": attention, **case} for case in cases]


def cutoff_layers(folder: Path) -> list[int]:
    config = json.loads((folder / "config.json").read_text())
    return list(range(config["start_layer"], config["num_hidden_layers"] + 1))


def write(file: Path, folder: Path, pairs: list[tuple[str, str]], scorer: Scorer, cases: list[dict[str, Any]]) -> None:
    used = list(dict.fromkeys(case["prompt"] for case in cases))
    lines = [f'"provenance": {json.dumps(provenance(folder))}', f'"max_length": {MAX_LENGTH}']
    lines.append(f'"prompts": {json.dumps({name: PROMPTS[name] for name in used})}')
    ids = {name: scorer.input_ids(pairs, prompt=PROMPTS[name]) for name in used}
    lines += [f'"pairs": [\n{rows(pairs)}\n]', '"input_ids": {' + ", ".join(f'"{name}": [\n{rows(ids[name])}\n]' for name in used) + "}"]
    lines.append(f'"cases": [\n{rows(cases)}\n]')
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def rows(items: list[Any]) -> str:
    return ",\n".join(json.dumps(item, separators=(",", ":")) for item in items)


def provenance(folder: Path) -> dict[str, Any]:
    return {
        "made": datetime.now(UTC).date().isoformat(),
        "versions": {name: version(name) for name in ("FlagEmbedding", "transformers", "torch", "tokenizers")},
        "python": platform.python_version(),
        "machine": f"CPU, {platform.machine()}, float32",
        "sha256": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model.safetensors", "tokenizer.json")},
    }


def main(checkpoints: Path, out: Path) -> None:
    pairs = PAIRS + ragged(24)
    folder = checkpoints / "minicpm_layerwise"
    write(out / "layerwise.json", folder, pairs, *layerwise(folder, pairs))
    folder = checkpoints / "gemma2_lightweight"
    scorer, cases = lightweight(folder, pairs, "eager")
    write(out / "lightweight.json", folder, pairs, scorer, cases + lightweight(folder, pairs, "sdpa")[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
