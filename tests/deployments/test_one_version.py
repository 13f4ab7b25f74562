"""The parts of one answer are of one version, however the two versions take turns in answering."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random

import pytest

from bgeserve.errors import FingerprintMismatch
from deployments import one_version
from deployments.one_version import IN_VAIN_ROUNDS, ROUNDS, of_one_version

Part = tuple[str, int]
"""Its version and its index."""
AskAgain = Callable[[Sequence[int]], Awaitable[Sequence[Part]]]


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_version, "ROUND_PAUSE_S", 0)


def version(part: Part) -> str:
    return part[0]


def answering(versions: Callable[[int], str], asked: list[list[int]]) -> AskAgain:
    """versions: which one answers in a round, counted from 0."""

    async def ask_again(indices: Sequence[int]) -> list[Part]:
        asked.append(list(indices))
        return [(versions(len(asked) - 1), index) for index in indices]

    return ask_again


async def test_answers_of_one_version_are_not_asked_for_again() -> None:
    asked: list[list[int]] = []
    parts = [("a", 0), ("a", 1)]
    assert await of_one_version(parts, version, answering(lambda _: "b", asked)) == parts
    assert asked == []


async def test_what_met_another_version_than_the_rest_is_asked_again_and_nothing_else() -> None:
    asked: list[list[int]] = []
    parts = [("a", 0), ("b", 1), ("a", 2)]
    made = await of_one_version(parts, version, answering(lambda round: "ba"[round], asked))
    assert made == [("a", 0), ("a", 1), ("a", 2)]
    assert asked == [[1], [1]]


async def test_the_version_of_most_may_be_gone_when_the_rest_is_asked_again() -> None:
    asked: list[list[int]] = []
    made = await of_one_version([("a", 0), ("b", 1), ("a", 2)], version, answering(lambda _: "b", asked))
    assert made == [("b", 0), ("b", 1), ("b", 2)]
    assert asked == [[1]] * IN_VAIN_ROUNDS + [[0, 2]]


async def test_a_third_version_may_take_the_place_of_both() -> None:
    made = await of_one_version([("a", 0), ("b", 1)], version, answering(lambda _: "c", []))
    assert made == [("c", 0), ("c", 1)]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.7, 0.98])
@pytest.mark.parametrize("count", [2, 3, 20, 200])
async def test_two_versions_that_both_answer_are_brought_together(count: int, share: float) -> None:
    for seed in range(300):
        random = Random(f"{count} {share} {seed}")

        def part(index: int, random: Random = random) -> Part:
            return ("new" if random.random() < share else "old", index)

        async def ask_again(indices: Sequence[int], part: Callable[[int], Part] = part) -> list[Part]:
            return [part(index) for index in indices]

        made = await of_one_version([part(index) for index in range(count)], version, ask_again)
        assert [index for _, index in made] == [*range(count)]
        assert len({of for of, _ in made}) == 1


async def test_two_versions_are_never_one_answer() -> None:
    """Each time the one that nobody waits for answers."""
    asked: list[list[int]] = []
    with pytest.raises(FingerprintMismatch, match="a, b"):
        await of_one_version([("a", 0), ("b", 1)], version, answering(lambda round: "bbba"[round % 4], asked))
    assert (IN_VAIN_ROUNDS, asked[3]) == (3, [0])
    assert len(asked) == ROUNDS
