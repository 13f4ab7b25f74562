from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from benchmarks.durability.disk import CannotMount, Disk
from benchmarks.durability.truth import ABSENT, Stored, Truth, text_of
from benchmarks.durability.victim import Store

ROOT = Path(__file__).parents[2]


def stored(**versions: int) -> Stored:
    """What a service says that has these documents in these versions."""
    documents = [(id, text_of(id, version)) for id, version in versions.items()]
    return Stored(documents, len(documents), [(id, text.partition(".")[0]) for id, text in documents])


def losses(truth: Truth, found: Stored) -> list[str]:
    return [fault.loss for fault in truth.check(found)]


@pytest.fixture
def truth() -> Truth:
    """`kept` and `deleted` are decided; `begun` is in its first version, and may be in its second."""
    truth = Truth()
    truth.begin(["kept", "deleted", "begun"], 1)
    truth.acknowledge(["kept", "deleted", "begun"], 1)
    truth.begin(["deleted"], ABSENT)
    truth.acknowledge(["deleted"], ABSENT)
    truth.begin(["begun"], 2)
    return truth


@pytest.mark.parametrize("version", [1, 2])
def test_a_write_without_an_answer_may_be_there_or_not(truth: Truth, version: int) -> None:
    assert losses(truth, stored(kept=1, begun=version)) == []
    # What was found is decided from then on.
    assert losses(truth, stored(kept=1, begun=3 - version)) == ["not what was written"]


def test_every_kind_of_loss_is_found_and_told_once(truth: Truth) -> None:
    assert losses(truth, stored(begun=1)) == ["lost"]
    assert losses(truth, stored(begun=1)) == []
    assert losses(truth, stored(begun=1, deleted=1)) == ["came back"]
    assert losses(truth, stored(begun=1, deleted=1, unheard_of=1)) == ["came back"]
    assert losses(truth, stored(begun=2, deleted=1, unheard_of=1)) == ["not what was written"]


def test_half_a_document_is_not_what_was_written(truth: Truth) -> None:
    half = text_of("begun", 2)[:-9]
    assert losses(truth, Stored([("kept", text_of("kept", 1)), ("begun", half)], 2, [])) == ["not what was written"]


def test_a_document_that_is_there_twice_and_a_wrong_count_are_found(truth: Truth) -> None:
    pages = [*stored(kept=1, begun=1).documents, ("kept", text_of("kept", 1))]
    assert losses(truth, Stored(pages, 2, [])) == ["stored twice"]
    assert losses(truth, Stored(pages[:2], 3, [])) == ["miscounted"]


def test_a_search_that_finds_what_was_replaced_or_deleted_is_found_out(truth: Truth) -> None:
    there = stored(kept=1, begun=2)
    old = [("begun", text_of("begun", 1)), ("deleted", text_of("deleted", 1))]
    assert losses(truth, Stored(there.documents, there.count, old)) == ["came back", "came back"]


@pytest.mark.ray
@pytest.mark.parametrize("store", get_args(Store))
def test_one_round_of_each_death_that_can_be_had_here(store: str, tmp_path: Path) -> None:
    if store == "milvus_lite":
        pytest.importorskip("milvus_lite")
    command = [sys.executable, "-m", "benchmarks.durability", "--rounds", "2", "--nodes", "1", "--power", str(int(can_mount(tmp_path)))]
    done = subprocess.run([*command, "--store", store], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost = 0" in done.stdout


def can_mount(folder: Path) -> bool:
    try:
        Disk(folder, 16).remove()
    except CannotMount:
        return False
    return True
