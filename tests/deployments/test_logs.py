"""Each request has our line alone in Serve's log, as JSON with every field or as text; other lines carry their request's id."""

from __future__ import annotations

import json
import logging
import logging.handlers
from collections.abc import Generator
from contextvars import copy_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve
from ray.serve._private.common import ServeComponentType
from ray.serve._private.logging_utils import configure_component_logger
from ray.serve.schema import LoggingConfig

from bgeserve.api.access_log import Entry
from deployments import logs

ENTRY = Entry("request-1", "POST", "/v1/search", 200, key_id="nightly", tokens=7, stages_ms={"embed": 1.25})


@pytest.fixture
def untouched_logging(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """What a replica does to its own process is undone."""
    import builtins
    import sys

    monkeypatch.setattr(builtins, "print", print)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    loggers = [logging.getLogger(name) for name in ("ray.serve", "bgeserve")]
    before = [(logger, logger.level, logger.propagate, list(logger.handlers), list(logger.filters)) for logger in loggers]
    yield
    for logger, level, propagate, handlers, filters in before:
        for handler in set(logger.handlers) - set(handlers):
            file = handler.target if isinstance(handler, logging.handlers.MemoryHandler) else None
            handler.close()
            if file is not None:
                file.close()
        logger.level, logger.propagate, logger.handlers, logger.filters = level, propagate, handlers, filters


def replica(folder: Path, monkeypatch: pytest.MonkeyPatch, *, keep_calls: bool, **config: Any) -> None:
    """This process logs as a replica does, through Serve's own handlers."""
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(app_name="app", deployment="ingress", replica_tag="abc"))
    configure_component_logger(
        component_name="app_ingress",
        component_id="abc",
        component_type=ServeComponentType.REPLICA,
        logging_config=LoggingConfig(logs_dir=str(folder), **config),
        max_bytes=10**6,
        backup_count=1,
    )
    logging.getLogger("bgeserve").handlers = []
    logging.getLogger("ray.serve").filters = []
    logs.send_to_serve_log(keep_calls=keep_calls)


def lines(folder: Path) -> list[str]:
    for handler in logging.getLogger("ray.serve").handlers:
        handler.flush()
    (file,) = folder.glob("replica_app_ingress_abc*.log")
    return file.read_text().splitlines()


@pytest.mark.usefixtures("untouched_logging")
def test_as_json_a_request_is_one_line_with_every_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replica(tmp_path, monkeypatch, keep_calls=False, encoding="JSON")
    ENTRY.write(12.345)
    (line,) = map(json.loads, lines(tmp_path))
    expected = {
        **{"levelname": "INFO", "request_id": "request-1", "method": "POST", "route": "/v1/search", "status": 200, "key_id": "nightly"},
        **{"tokens": 7, "stages_ms": {"embed": 1.25}, "total_ms": 12.35, "message": "POST /v1/search 200 12.3ms 7 tokens"},
        **{"application": "app", "deployment": "ingress", "replica": "abc"},
    }
    assert expected.items() <= line.items()
    assert "asctime" in line


@pytest.mark.usefixtures("untouched_logging")
def test_as_text_it_is_for_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replica(tmp_path, monkeypatch, keep_calls=False)
    ENTRY.write(12.345)
    (line,) = lines(tmp_path)
    assert line.startswith("INFO ")
    assert line.endswith("request-1 -- POST /v1/search 200 12.3ms 7 tokens")


@pytest.mark.usefixtures("untouched_logging")
def test_serve_does_not_tell_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replica(tmp_path, monkeypatch, keep_calls=True)
    for message in ("POST / 200 12.3ms", "CALL encode OK 3.0ms"):  # as Serve's replicas log HTTP and handles
        logging.getLogger("ray.serve").info(message, extra={"serve_access_log": True, "skip_context_filter": True})
    assert [line.partition(" -- ")[2] for line in lines(tmp_path)] == ["CALL encode OK 3.0ms"]


@pytest.mark.usefixtures("untouched_logging")
def test_whoever_switches_access_logs_off_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replica(tmp_path, monkeypatch, keep_calls=False, enable_access_log=False)
    ENTRY.write(1)
    logging.getLogger("bgeserve.outgrown").warning("something else")
    assert [line.rpartition("-- ")[2] for line in lines(tmp_path)] == ["something else"]


@pytest.mark.usefixtures("untouched_logging")
def test_a_line_about_a_request_has_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replica(tmp_path, monkeypatch, keep_calls=False, encoding="JSON")

    def work() -> None:
        logs.work_for("request-2")
        assert logs.request_id() == "request-2"
        logging.getLogger("bgeserve.batching").warning("out of memory")

    copy_context().run(work)
    logging.getLogger("bgeserve.batching").warning("of nobody's")
    (line, other) = map(json.loads, lines(tmp_path))
    assert (line["message"], line["request_id"]) == ("out of memory", "request-2")
    assert "request_id" not in other
