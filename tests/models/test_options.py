"""Which options of a request each reranker takes: a wrong one is refused by its field, in words that say what the model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bgeserve.errors import InvalidRequest, SettingsError
from bgeserve.types import EmbedderOptions, Example, RerankerOptions
from tests.checkpoints import TEXTS
from tests.models.folders import Folders
from tests.models.loaded import Reranker, embedder

ENCODER, LLM = "bge-reranker-base", "bge-reranker-v2-gemma"
LAYERWISE, LIGHTWEIGHT = "bge-reranker-v2-minicpm-layerwise", "bge-reranker-v2.5-gemma2-lightweight"

WRONG: list[tuple[str, dict[str, Any], str]] = [
    (ENCODER, {"cutoff_layers": [8]}, r"cutoff_layers is \[8\], but .*bge-reranker-base \(cross_encoder\) takes no options"),
    (ENCODER, {"prompt": "Is it?"}, r"prompt is 'Is it\?', but .* \(cross_encoder\) takes no options"),
    (ENCODER, {"instruction": "Q: "}, r"instruction is 'Q: ', but .* \(cross_encoder\) takes no options"),
    (ENCODER, {"weights": {"dense": 1.0}}, r"weights is .*, but .* \(cross_encoder\) takes no options"),
    (LLM, {"cutoff_layers": [2]}, r"cutoff_layers is \[2\], but .* \(llm\) takes instruction, prompt$"),
    (LLM, {"compress_ratio": 2}, r"compress_ratio is 2, but .* \(llm\) takes instruction, prompt$"),
    (LAYERWISE, {"cutoff_layers": [7]}, r"cutoff_layers has \[7\]; .* can be cut at layers 2 to 6"),
    (LAYERWISE, {"cutoff_layers": [1, 3]}, r"cutoff_layers has \[1\]; .* can be cut at layers 2 to 6"),
    (LAYERWISE, {"cutoff_layers": [-1]}, r"cutoff_layers has \[-1\]; .* can be cut at layers 2 to 6"),
    (LAYERWISE, {"compress_layers": [3]}, r"compress_layers is \[3\], but .* \(layerwise\) takes instruction, prompt, cutoff_layers"),
    (LIGHTWEIGHT, {"cutoff_layers": [3, 40]}, r"cutoff_layers has \[40\]; .* can be cut at layers 2 to 6"),
    (LIGHTWEIGHT, {"compress_ratio": 3}, r"compress_ratio must be one of \(1, 2, 4, 8\) \(1: off\), not 3"),
    (LIGHTWEIGHT, {"compress_ratio": 0}, r"compress_ratio must be one of \(1, 2, 4, 8\) \(1: off\), not 0"),
    (LIGHTWEIGHT, {"compress_layers": [0, 3]}, r"compress_layers has \[0\]; .* can compress before layers 1 to 5"),
    (LIGHTWEIGHT, {"compress_layers": [6]}, r"compress_layers has \[6\]; .* can compress before layers 1 to 5"),
    (LIGHTWEIGHT, {"weights": {"dense": 1.0}}, r"weights is .*, but .* \(lightweight\) takes .*compress_ratio"),
]  # fmt: skip


@pytest.fixture(scope="module")
def rerankers(folders: Folders) -> dict[str, Reranker]:
    return {name: Reranker(folders[name]) for name in (ENCODER, LLM, LAYERWISE, LIGHTWEIGHT)}


@pytest.mark.parametrize(("name", "options", "message"), WRONG)
def test_a_wrong_option_is_refused(name: str, options: dict[str, Any], message: str, rerankers: dict[str, Reranker]) -> None:
    with pytest.raises(InvalidRequest, match=message) as refused:
        rerankers[name].rules.resolve(RerankerOptions(**options))
    assert refused.value.field == next(iter(options))


IN_SETTINGS = [one for one in WRONG if "weights" not in one[1]]


@pytest.mark.parametrize(("name", "options", "message"), IN_SETTINGS)
def test_the_same_in_settings_ends_the_start(name: str, options: dict[str, Any], message: str, folders: Folders) -> None:
    with pytest.raises(SettingsError, match=message) as refused:
        Reranker(folders[name], **options)
    assert refused.value.field == next(iter(options))


@pytest.mark.parametrize("scoring", ["hybrid", "late_interaction"])
def test_scoring_by_vectors_takes_weights_at_most(scoring: str, bge_m3: Path) -> None:
    rules = Reranker(bge_m3, scoring=scoring).rules
    for options in ({"prompt": "Is it?"}, {"cutoff_layers": [1]}, {"instruction": "Q: "}):
        with pytest.raises(InvalidRequest, match=f"takes {'weights' if scoring == 'hybrid' else 'no options'}$"):
            rules.resolve(RerankerOptions(**options))  # type: ignore[arg-type]
    if scoring == "hybrid":
        with pytest.raises(InvalidRequest, match="weights must have at least one above 0, not"):
            rules.resolve(RerankerOptions(weights={"dense": 0.0}))
        with pytest.raises(SettingsError, match="weights must have at least one above 0"):
            Reranker(bge_m3, scoring="hybrid", weights={"dense": 0})


def test_hybrid_needs_all_three_vectors(bert: Path) -> None:
    with pytest.raises(SettingsError, match="has no multi_vector and sparse vectors, which scoring: hybrid compares") as refused:
        Reranker(bert, scoring="hybrid")
    assert refused.value.field == "scoring"


# --- what is left out -------------------------------------------------------------------------------------------------------


def test_settings_hold_where_a_request_says_nothing(lightweight: Path) -> None:
    model = Reranker(lightweight, cutoff_layers=(3, 5), compress_layers=(2,), compress_ratio=2, prompt="Is it?", instruction="Q: ")
    stated = RerankerOptions(
        cutoff_layers=(3, 5), compress_layers=(2,), compress_ratio=2, prompt="Is it?", instruction="Q: "
    )  # fmt: skip
    plain = Reranker(lightweight)
    assert model.forward(model.items(TEXTS[0], TEXTS)) == plain.forward(plain.items(TEXTS[0], TEXTS, stated))
    assert model.rules.resolve(RerankerOptions(compress_ratio=4)).cutoff_layers == (3, 5)
    assert model.rules.resolve(RerankerOptions(compress_ratio=1)).compress_ratio == 1
    assert set(model.forward(model.items("q", ["p"]))[0].parts) == {"layer_3", "layer_5"}


@pytest.mark.parametrize("name", [LAYERWISE, LIGHTWEIGHT])
def test_a_cutoff_alone_scores_as_it_does_among_others(name: str, rerankers: dict[str, Reranker]) -> None:
    """With its layer's own head. FlagEmbedding's lightweight class takes the first head for any single cutoff (layer_reranker.py), so its
    golden scores have all layers at once, and this is what they say about one."""
    model = rerankers[name]
    together = model.forward(model.items(TEXTS[0], TEXTS, RerankerOptions(cutoff_layers=[6, 5, 4, 3, 2, 2])))
    assert {tuple(one.parts) for one in together} == {tuple(f"layer_{layer}" for layer in range(2, 7))}
    for layer in range(2, 7):
        alone = model.forward(model.items(TEXTS[0], TEXTS, RerankerOptions(cutoff_layers=[layer])))
        assert [one.score for one in alone] == pytest.approx([one.parts[f"layer_{layer}"] for one in together], abs=1e-5)
        assert not any(one.parts for one in alone)
    assert model.forward(model.items(TEXTS[0], TEXTS)) == alone  # the last layer, unasked
    assert [one.score for one in together] == [one.parts["layer_6"] for one in together]


# --- prompts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [LLM, LAYERWISE, LIGHTWEIGHT])
def test_a_prompt_that_the_positions_have_no_room_for_is_refused(name: str, rerankers: dict[str, Reranker], folders: Folders) -> None:
    long = "Is it so? " * 400
    model = rerankers[name]
    with pytest.raises(InvalidRequest, match=r"prompt has \d+ tokens; beside pairs of \d+ it may have \d+") as refused:
        model.items("q", ["p"], RerankerOptions(prompt=long))
    assert refused.value.field == "prompt"
    with pytest.raises(SettingsError, match=r"prompt has \d+ tokens") as at_start:
        Reranker(folders[name], prompt=long)
    assert at_start.value.field == "prompt"


@pytest.mark.parametrize("name", [LLM, LAYERWISE, LIGHTWEIGHT])
def test_the_longest_prompt_and_pair_have_positions(name: str, folders: Folders) -> None:
    model = Reranker(folders[name], max_tokens=400)
    prompt = "a a " * 1000
    with pytest.raises(InvalidRequest) as refused:
        model.items("q", ["p"], RerankerOptions(prompt=prompt))
    most = int(refused.value.message.rpartition(" ")[2])
    (ids,) = model.scorer._prompter._tokenizer.body_ids([prompt], 10_000, "prompt")  # type: ignore[attr-defined]
    longest = prompt[: len(prompt) * most // len(ids) - 20]
    for query in ("q", "query " * 900):
        (item,) = model.items(query, ["passage " * 900], RerankerOptions(prompt=longest))
        assert item.cost <= 1024
    model.forward([item])


# --- embedders --------------------------------------------------------------------------------------------------------------


def test_examples_on_a_model_without_them_are_refused(folders: Folders) -> None:
    options = EmbedderOptions(examples=[Example("query", "response")])
    for name in ("bge-m3", "bge-multilingual-gemma2", "bge-small-en-v1.5"):
        model = embedder(folders[name])
        assert model.info.options == ("instruction",)
        with pytest.raises(InvalidRequest, match=rf"examples has 1; .*{name} takes none, only an instruction") as refused:
            model.tokenize(["text"], "query", options=options)
        assert refused.value.field == "examples"
        with pytest.raises(SettingsError, match=r"examples has 1; .* takes none, only an instruction"):
            embedder(folders[name], examples=({"query": "q", "response": "r"},))
    assert embedder(folders["bge-en-icl"]).info.options == ("instruction", "examples")


@pytest.mark.parametrize("options", [{"instruction": "find: "}, {"instruction": ""}, {"examples": [Example("q", "r")]}])
def test_options_are_for_queries(options: dict[str, Any], folders: Folders) -> None:
    (name,) = options
    model = embedder(folders["bge-en-icl"])
    with pytest.raises(InvalidRequest, match=f"{name} is for queries, not for documents: set input_type to query") as refused:
        model.tokenize(["text"], "document", options=EmbedderOptions(**options))
    assert refused.value.field == name


def test_examples_beyond_the_positions_are_refused(folders: Folders) -> None:
    model = embedder(folders["bge-en-icl"])
    options = EmbedderOptions(examples=[Example("word " * 400, "word " * 400)])
    with pytest.raises(InvalidRequest, match=r"examples and query have \d+ tokens; .* has positions for 1024") as refused:
        model.tokenize(["text"], "query", options=options)
    assert refused.value.field == "examples"


def test_settings_examples_are_shown_unless_a_request_has_its_own(folders: Folders) -> None:
    example = {"query": "what is a cat", "response": "a pet", "instruction": "Other task"}
    model, plain = embedder(folders["bge-en-icl"], examples=(example,)), embedder(folders["bge-en-icl"])
    shown = EmbedderOptions(examples=[Example(**example)])

    def ids(one: Any, options: EmbedderOptions | None) -> list[int]:
        return one.tokenize(["query"], "query", options=options)[0].ids.tolist()

    assert ids(model, None) == ids(plain, shown)
    assert ids(model, EmbedderOptions(examples=[])) == ids(plain, None)
    assert len(ids(model, None)) > len(ids(plain, None))
