"""Which model a request means, and what is said when it means none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bgeserve.caller import A_JOB
from bgeserve.errors import ComputeError, InvalidRequest, NotFound, UnknownModel, WrongRole
from bgeserve.protocols import Readiness, SearchRequest
from bgeserve.retrieval import StoreRetriever
from bgeserve.service import SearchService, Service
from bgeserve.settings import SearchSettings
from bgeserve.store_settings import QdrantEdgeSettings
from bgeserve.types import Document, Embeddings, Leg, ModelInfo, Scores


class NamedEmbedder:
    def __init__(self, name: str) -> None:
        self.name = name

    async def info(self) -> ModelInfo:
        return ModelInfo(self.name, "embedder", "m", 512)

    async def encode(self, texts: list[str], **options: object) -> Embeddings:
        return Embeddings(self.name, [1] * len(texts), [False] * len(texts))


class NamedReranker:
    def __init__(self, name: str) -> None:
        self.name = name

    async def info(self) -> ModelInfo:
        return ModelInfo(self.name, "reranker", "m", 512)

    async def rerank(self, query: str, passages: list[str], **options: object) -> Scores:
        ones = np.ones(len(passages), np.float32)
        return Scores(ones, ones, [1] * len(passages), [False] * len(passages))


async def ready() -> Readiness:
    return Readiness(True)


def service(embedders: list[str], rerankers: list[str]) -> Service:
    return Service({name: NamedEmbedder(name) for name in embedders}, {name: NamedReranker(name) for name in rerankers}, None, ready)  # type: ignore[arg-type]


async def test_the_only_model_of_a_role_needs_no_name() -> None:
    served = service(["e"], ["r"])
    assert (await served.encode(None, ["x"])).fingerprint == "e"
    assert len((await served.rerank(None, "q", ["p", "p"])).raw) == 2


async def test_a_name_chooses_among_several() -> None:
    assert (await service(["e", "f"], []).encode("f", ["x"])).fingerprint == "f"
    with pytest.raises(InvalidRequest, match=r"model must name one of the embedders of this service: \['e', 'f'\]"):
        await service(["e", "f"], []).encode(None, ["x"])


async def test_an_unknown_model_and_a_wrong_role_are_told_apart() -> None:
    served = service(["e"], ["r"])
    with pytest.raises(UnknownModel, match=r"'x' is not served here; the embedders are \['e'\]"):
        await served.encode("x", ["text"])
    with pytest.raises(WrongRole, match=r"'r' has the role reranker; this request needs one of the embedders: \['e'\]"):
        await served.encode("r", ["text"])
    with pytest.raises(WrongRole, match="'e' has the role embedder"):
        await served.rerank("e", "q", ["p"])


async def test_models_lists_every_role() -> None:
    assert [(model.name, model.role) for model in await service(["e"], ["r"]).models()] == [("e", "embedder"), ("r", "reranker")]


async def test_what_one_model_is_asks_no_other() -> None:
    served = service(["e"], ["r"])
    assert ((await served.model_info("e")).role, (await served.model_info("r")).role) == ("embedder", "reranker")
    with pytest.raises(UnknownModel, match=r"'x' is not served here; the models are \['e', 'r'\]"):
        await served.model_info("x")


async def test_in_one_process_every_model_is_available() -> None:
    statuses = await service(["e"], ["r"]).model_statuses()
    assert [(status.name, status.available, status.protocol) for status in statuses] == [("e", True, "retriever"), ("r", True, "reranker")]


async def test_a_service_without_an_index_says_so() -> None:
    served = service(["e"], ["r"])
    for call in (
        served.search(SearchRequest(["q"])),
        served.put_documents("default", [Document("a", "b")]),
        served.get_documents("default", ["a"]),
        served.delete_documents("default", ["a"]),
        served.describe_collection("default"),
    ):
        with pytest.raises(NotFound, match="has no collections"):
            await call
    assert (await served.readiness()).ready


@pytest.mark.parametrize(
    ("legs", "outputs"),
    [
        (("full_text",), ["dense"]),
        (("dense", "sparse"), ["dense", "sparse"]),
        (("multi_vector", "full_text"), ["dense", "multi_vector"]),
        (("dense", "sparse", "full_text", "multi_vector"), ["dense", "sparse", "multi_vector"]),
    ],
)
async def test_documents_get_the_vectors_of_the_settings_legs(tmp_path: Path, legs: tuple[Leg, ...], outputs: list[str]) -> None:
    asked: list[object] = []

    class Asked(NamedEmbedder):
        async def encode(self, texts: list[str], **options: object) -> Embeddings:
            asked.append(options["outputs"])
            raise ComputeError("enough is known")

    retriever = StoreRetriever(QdrantEdgeSettings(path=tmp_path / "store", create=True))
    searching = SearchService(Asked("e"), retriever, {}, SearchSettings(legs=legs))  # type: ignore[arg-type]
    with pytest.raises(ComputeError):
        await searching.index.put("default", [Document("a", "text")], truncate=True, caller=A_JOB)
    await retriever.close()
    assert asked == [outputs]
