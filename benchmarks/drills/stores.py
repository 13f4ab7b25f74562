"""A store that fails: a server that answers 500, or not at all, and the full disk of an embedded one."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

from benchmarks.drills.cluster import Cluster
from benchmarks.drills.drill import Drill, Fault
from benchmarks.drills.rule import READS_GO_ON, WAITS
from benchmarks.durability.disk import fill

DOWN_S = 8.0


def server_is(mood: Literal["failing", "silent"]) -> Fault:
    @contextmanager
    def fault(cluster: Cluster) -> Generator[frozenset[int]]:
        assert cluster.place.store is not None
        with cluster.place.store.being(mood):
            yield frozenset()

    return fault


@contextmanager
def full_disk(cluster: Cluster) -> Generator[frozenset[int]]:
    """Somebody else's file takes all the room, until it is deleted."""
    assert cluster.place.small_disk is not None
    others = cluster.place.small_disk / "others"
    fill(others)
    yield frozenset()
    others.unlink()


DRILLS = (
    Drill("store-fails", "the store's server answers 500", server_is("failing"), WAITS, config="with-server", lasts_s=DOWN_S),
    Drill("store-silent", "the store's server does not answer", server_is("silent"), WAITS, config="with-server", lasts_s=DOWN_S),
    Drill("full-disk", "no room on the disk of an embedded store", full_disk, READS_GO_ON, config="small-disk", lasts_s=DOWN_S),
)
