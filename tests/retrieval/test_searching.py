"""Hits, their explanations, and the multi-vector leg."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bgeserve.errors import InvalidRequest
from bgeserve.filters import Equals
from bgeserve.fusion import Fusion, fuse
from bgeserve.max_sim import max_sim
from bgeserve.protocols import Retriever
from bgeserve.types import FINDING_LEGS, Chunk
from tests.retrieval.owner import begin, put, search
from tests.stores.samples import chunk, dense, embed, pieces_of, query, tokens


async def test_a_document_is_found_once_by_the_best_of_its_chunks(retriever: Retriever) -> None:
    await put(retriever, *pieces_of("long", ["amber amber", "amber", "of amber", "quartz"]), chunk("other", "amber and quartz"))
    found = await search(retriever, "amber", legs=["full_text"])
    assert [hit.id for hit in found] == ["long", "other"]
    assert (found[0].chunk, found[0].text) == (0, "amber amber")
    assert [hit.id for hit in await search(retriever, "amber", legs=["full_text"], limit=1)] == ["long"]
    assert len(await search(retriever, "amber", legs=["full_text"], limit=2)) == 2  # three chunks are of one document


async def test_hits_explain_themselves(retriever: Retriever) -> None:
    rng = np.random.default_rng(1)
    chunks = [chunk(f"d{i}", " ".join(rng.choice(["amber", "basalt", "cedar", "delta"], 3)), {"i": i}) for i in range(60)]
    await put(retriever, *chunks)
    hits = await search(retriever, "amber", limit=60)
    alone = {leg: await search(retriever, "amber", legs=[leg], limit=60) for leg in ("dense", "full_text")}
    ranks = {leg: {hit.id: rank for rank, hit in enumerate(found, 1)} for leg, found in alone.items()}
    for hit in hits:
        assert hit.ranks == {leg: ranks[leg][hit.id] for leg in ranks if hit.id in ranks[leg]}
        assert hit.scores["fused"] == hit.score == pytest.approx(sum(1 / (60 + rank) for rank in hit.ranks.values()))
        assert hit.scores["dense"] == pytest.approx(float(dense(hit.text) @ dense("amber")), abs=1e-5)
        assert (hit.text, hit.metadata) == (chunks[int(hit.id[1:])].text, {"i": int(hit.id[1:])})
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert await search(retriever, "amber", limit=7) == hits[:7]


@pytest.mark.parametrize("fusion", [Fusion(rrf_k=1), Fusion("weighted", {"dense": 0.2})])
async def test_legs_are_fused_as_asked(retriever: Retriever, fusion: Fusion) -> None:
    await put(retriever, *(chunk(f"d{i}", f"amber {'basalt ' * (i % 5)}{i}") for i in range(40)))
    found = {leg: [(hit.id, hit.scores[leg]) for hit in await search(retriever, "amber", legs=[leg], limit=40)] for leg in FINDING_LEGS}
    hits = await search(retriever, "amber", legs=FINDING_LEGS, fusion=fusion, limit=40)
    assert {hit.id: pytest.approx(hit.score) for hit in hits} == {fused.key: fused.score for fused in fuse(found, fusion)}


async def test_every_query_gets_its_own_answer(retriever: Retriever) -> None:
    await put(retriever, chunk("a", "amber"), chunk("b", "basalt"))
    answers = await retriever.retrieve(
        "default",
        [query("basalt"), query("amber"), query("cedar")],
        fingerprint=None,
        legs=["full_text"],
        fusion=Fusion(),
        candidates=5,
        limit=5,
    )
    assert [[hit.id for hit in hits] for hits in answers] == [["b"], ["a"], []]


async def test_filter(retriever: Retriever) -> None:
    await put(retriever, *(chunk(f"d{i}", f"amber {i}", {"i": i}) for i in range(30)))
    assert [hit.id for hit in await search(retriever, "amber", filter=Equals("i", 17))] == ["d17"]


async def test_vectors_need_a_fingerprint(retriever: Retriever) -> None:
    await put(retriever, chunk("a", "amber"))
    assert len(await search(retriever, "amber", fingerprint=None, legs=["full_text"])) == 1
    with pytest.raises(InvalidRequest, match="fingerprint"):
        await search(retriever, "amber", fingerprint=None)


"""The leg that ranks what the others found."""


@pytest.fixture
async def chunks(retriever: Retriever) -> list[Chunk]:
    rng = np.random.default_rng(2)
    chunks = [chunk(f"d{i}", " ".join(rng.choice(["amber", "basalt", "cedar", "delta", "ember"], 4)) + f" {i}") for i in range(80)]
    await put(retriever, *chunks)
    return chunks


async def test_ranks_everything_that_any_other_leg_found(retriever: Retriever, chunks: list[Chunk]) -> None:
    asked, few = "amber cedar 17", {"candidates": 8, "limit": 80}
    hits = await search(retriever, asked, legs=["multi_vector", "dense", "full_text"], **few)
    others = [await search(retriever, asked, legs=[leg], **few) for leg in ("dense", "full_text")]
    assert {hit.id for hit in hits} == {hit.id for found in others for hit in found}
    assert len(hits) > 8
    scores = max_sim(tokens(asked), [tokens(hit.text).astype(np.float16) for hit in hits])
    assert [hit.scores["multi_vector"] for hit in hits] == pytest.approx(scores.tolist(), abs=1e-5)
    by_rank = sorted(hits, key=lambda hit: hit.ranks["multi_vector"])
    assert [hit.ranks["multi_vector"] for hit in by_rank] == list(range(1, len(hits) + 1))
    assert [hit.scores["multi_vector"] for hit in by_rank] == sorted((hit.scores["multi_vector"] for hit in hits), reverse=True)
    for hit in hits:
        assert hit.score == pytest.approx(sum(1 / (60 + rank) for rank in hit.ranks.values()))


async def test_ranks_alone_where_the_others_weigh_nothing(retriever: Retriever, chunks: list[Chunk]) -> None:
    fusion = Fusion(weights={"dense": 0.0, "full_text": 0.0})
    hits = await search(retriever, "amber cedar 17", legs=["dense", "full_text", "multi_vector"], fusion=fusion, limit=80)
    assert [hit.ranks["multi_vector"] for hit in hits] == list(range(1, len(chunks) + 1))
    assert set(hits[0].scores) == {"dense", "full_text", "multi_vector", "fused"}


async def test_alone_it_would_find_nothing_and_is_refused(retriever: Retriever) -> None:
    with pytest.raises(InvalidRequest, match="only multi_vector") as refused:
        await search(retriever, "amber", legs=["multi_vector"])
    assert refused.value.field == "legs"


async def test_a_collection_without_token_vectors_is_refused(retriever: Retriever) -> None:
    c = chunk("a", "amber")
    await retriever.finish_write("default", await begin(retriever, [c]), [c], replace(embed([c]), multi_vector=None))
    assert (await retriever.describe("default")).legs == ["dense", "sparse", "full_text"]
    with pytest.raises(InvalidRequest, match="the collection has no multi_vector vectors"):
        await search(retriever, "amber", legs=["dense", "multi_vector"])
    assert len(await search(retriever, "amber", legs=["dense"])) == 1
