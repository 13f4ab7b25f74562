"""`engine: flagembedding`: FlagEmbedding's own classes answer through our engines, with the packed models' fingerprints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bgeserve.engine import EmbedderEngine, RerankerEngine
from bgeserve.errors import InvalidRequest, SettingsError
from bgeserve.models.embedding import load_embedding_model
from bgeserve.models.reranker import load_reranker
from bgeserve.settings import EmbedderSettings, RerankerSettings
from bgeserve.types import OUTPUTS, EmbedderOptions, Embeddings, Example, Output, RerankerOptions, Scores
from tests.checkpoints import TEXTS
from tests.models.folders import LAYERED, Folders

pytestmark = pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated")

INSTRUCTION = "Find what answers it."
EXAMPLES = [Example("what is gzip", "a format of compressed files")]


async def embeddings(folder: Any, engine: str, options: EmbedderOptions | None, outputs: tuple[Output, ...]) -> Embeddings:
    served = EmbedderEngine("e", EmbedderSettings(model=str(folder), dtype="float32", engine=engine, max_tokens=200))  # type: ignore[arg-type]
    try:
        return await served.encode(TEXTS, outputs=outputs, input_type="document" if options is None else "query", options=options)
    finally:
        served.close()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bge-m3", None),
        ("bge-small-en-v1.5", EmbedderOptions(INSTRUCTION)),
        ("e5-small-v2", None),
        ("bge-multilingual-gemma2", EmbedderOptions(INSTRUCTION)),
        ("bge-en-icl", EmbedderOptions(INSTRUCTION, EXAMPLES)),
    ],
)
async def test_an_embedder_answers_as_the_packed_one(folders: Folders, name: str, options: EmbedderOptions | None) -> None:
    outputs: tuple[Output, ...] = OUTPUTS if name == "bge-m3" else ("dense",)
    packed, theirs = [await embeddings(folders[name], engine, options, outputs) for engine in ("packed", "flagembedding")]
    assert packed.fingerprint == theirs.fingerprint
    assert packed.dense is not None
    assert theirs.dense is not None
    assert np.abs(packed.dense - theirs.dense).max() <= 1e-5
    for ours, other in zip(packed.multi_vector or (), theirs.multi_vector or (), strict=True):
        assert np.abs(ours - other).max() <= 1e-5
    for ours, other in zip(packed.sparse or (), theirs.sparse or (), strict=True):
        ours_by_id, theirs_by_id = (dict(zip(v.indices.tolist(), v.values.tolist(), strict=True)) for v in (ours, other))
        assert max(abs(ours_by_id.get(i, 0) - theirs_by_id.get(i, 0)) for i in ours_by_id | theirs_by_id) <= 1e-5


async def scores(folder: Any, engine: str, options: RerankerOptions | None) -> Scores:
    served = RerankerEngine("r", RerankerSettings(model=str(folder), dtype="float32", engine=engine, max_tokens=200))  # type: ignore[arg-type]
    try:
        return await served.rerank(TEXTS[0], TEXTS[:5], options=options)
    finally:
        served.close()


@pytest.mark.parametrize(
    ("name", "options"),
    [("bge-reranker-base", None), ("bge-reranker-v2-gemma", RerankerOptions(prompt="Does B answer A?", instruction="Q: "))],
)
async def test_a_reranker_answers_as_the_packed_one(folders: Folders, name: str, options: RerankerOptions | None) -> None:
    packed, theirs = [await scores(folders[name], engine, options) for engine in ("packed", "flagembedding")]
    assert packed.raw == pytest.approx(theirs.raw, abs=1e-4)
    assert packed.normalized == pytest.approx(theirs.normalized, abs=1e-4)


def test_requests_with_different_prompts_share_a_batch(folders: Folders) -> None:
    model, rules = load_reranker(RerankerSettings(model=str(folders["bge-reranker-v2-gemma"]), dtype="float32", engine="flagembedding"))
    asked = [rules.resolve(RerankerOptions(prompt=prompt)) for prompt in ("Does B answer A?", "Are A and B alike?")]
    items = [item for passage in TEXTS[:4] for options in asked for item in model.tokenize(TEXTS[0], [passage], options)]
    alone = [model.forward([item])[0].score for item in items]
    assert [scored.score for scored in model.forward(items)] == pytest.approx(alone, abs=1e-4)
    assert abs(alone[0] - alone[1]) > 0.01


@pytest.mark.parametrize("name", LAYERED)
def test_what_flagembedding_cannot_construct_here_is_refused(folders: Folders, name: str) -> None:
    with pytest.raises(SettingsError, match="needs transformers 4; use engine: packed"):
        load_reranker(RerankerSettings(model=str(folders[name]), engine="flagembedding"))


def test_it_takes_the_options_that_the_packed_one_takes(folders: Folders) -> None:
    model = load_embedding_model(EmbedderSettings(model=str(folders["bge-small-en-v1.5"]), engine="flagembedding"))
    with pytest.raises(InvalidRequest, match="takes none"):
        model.tokenize(["q"], "query", True, EmbedderOptions(examples=EXAMPLES))
    with pytest.raises(InvalidRequest, match="is for queries"):
        model.tokenize(["d"], "document", True, EmbedderOptions(INSTRUCTION))
    with pytest.raises(InvalidRequest, match=r"outputs has \['sparse'\]"):
        model.check_outputs(["sparse"])
