"""`bge-serve status --watch`: what it shows of a running service, and what it makes of totals that grow, fall or are new."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bgeserve import Client
from bgeserve.cli import main, watch
from bgeserve.cli.watch import Look, Rates, rates_between
from bgeserve.model_load import ModelLoad, combined
from bgeserve.protocols import Readiness
from bgeserve.types import Document
from tests.api.backend import Stage
from tests.api.conftest import server, stage, url

__all__ = ["server", "stage", "url"]

BUSY = ModelLoad("m", replicas=2, backlog_s=0.5, tokens_per_s=4000, tokens_total=10_000, refused_total=5, expired_total=1)


def look(at: float, *loads: ModelLoad) -> Look:
    return Look(Readiness(ready=True), (), loads, (), at)


def test_rates_are_what_the_totals_have_grown_by() -> None:
    later = replace(BUSY, tokens_total=16_000, refused_total=9, expired_total=1)
    assert rates_between(look(10, BUSY), look(12, later)) == {"m": Rates(tokens=3000, refused=2, expired=0)}


def test_a_replica_that_went_took_its_total_along_and_a_new_model_has_no_rate_yet() -> None:
    fewer = replace(BUSY, replicas=1, tokens_total=4_000, refused_total=0)
    assert rates_between(look(10, BUSY), look(12, fewer, replace(BUSY, name="new"))) == {"m": Rates()}
    assert rates_between(None, look(12, BUSY)) == {}


def test_several_replicas_are_as_far_behind_as_all_of_them_together() -> None:
    fast, slow = ModelLoad("", 1, 1.0, 3000, 10, 1, 2), ModelLoad("", 1, 5.0, 1000, 20, 3, 4)
    assert combined("m", [fast, slow]) == ModelLoad("m", 2, 2.0, 4000, 30, 4, 6)
    assert combined("m", []) == ModelLoad("m", 0)


def looks(monkeypatch: pytest.MonkeyPatch, count: int, between: object = None) -> None:
    """`--watch` sees the service so many times."""
    left = [count]

    def sleep(_: float) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        if callable(between):
            between()

    monkeypatch.setattr(watch.time, "sleep", sleep)


def test_it_shows_replicas_backlog_rates_and_collections_until_it_is_interrupted(
    url: str, stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(url) as client:
        client.put_documents([Document("a", "one")])
    stage.embedding.load = BUSY

    def more() -> None:
        stage.embedding.load = replace(BUSY, tokens_total=10**9)

    looks(monkeypatch, 2, more)
    assert main(["status", "--watch", "--url", url, "--json"]) == 130
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["ready"]
    assert first["loads"][0]["name"] == "hashing"
    assert (first["loads"][0]["backlog_s"], first["per_s"]) == (0.5, {})
    assert second["per_s"]["hashing"]["tokens"] > 0
    assert [collection["name"] for collection in first["collections"]] == ["default"]

    looks(monkeypatch, 1)
    assert main(["status", "--watch", "--url", url]) == 130
    shown = capsys.readouterr().out
    assert all(said in shown for said in ("ready", "hashing", "1 RUNNING", "0.50", "4,000", "default"))


def test_a_service_that_does_not_answer_is_said_to_and_asked_again(
    url: str, stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks(monkeypatch, 2)
    assert main(["status", "--watch", "--url", "http://127.0.0.1:1", "--json"]) == 130
    assert ["error" in json.loads(line) for line in capsys.readouterr().out.splitlines()] == [True, True]
