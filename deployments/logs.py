"""What this replica says, in Serve's own log: as text, or as JSON where the Serve config says `logging_config: {encoding: JSON}`.

Knows Serve's log records. The line of each request is `bgeserve.api.access_log`'s, in the place of Serve's own.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

from ray import serve
from ray.serve.context import _get_serve_request_context, _set_request_context  # pyright: ignore[reportPrivateUsage]

from bgeserve.observe import ACCESS_LOGGER

SERVE = logging.getLogger("ray.serve")


def send_to_serve_log(*, keep_calls: bool = False) -> None:
    """Once per replica. keep_calls: whether Serve's own lines of calls over a handle stay, where nothing else tells of them."""
    ours = logging.getLogger("bgeserve")
    ours.setLevel(logging.DEBUG)  # Serve's level decides, which may change
    ours.addHandler(_ToServe())
    SERVE.addFilter(_WithoutServesOwnLines(keep_calls))


def request_id() -> str:
    """Of the request that this task works for, as Serve hands it from handle to handle."""
    return _get_serve_request_context().request_id


def work_for(request_id: str) -> None:
    """From here on this task's lines are about that request."""
    _set_request_context(request_id=request_id)


class _ToServe(logging.Handler):
    """Serve gives a replica's log file to its own logger alone: what others say would be lost."""

    def emit(self, record: logging.LogRecord) -> None:
        if SERVE.isEnabledFor(record.levelno):
            if record.name == ACCESS_LOGGER:
                record.__dict__.update(self._of_access)
            SERVE.handle(record)

    @cached_property
    def _of_access(self) -> dict[str, Any]:
        """Serve would find this out anew for every line, which costs more than the line."""
        context = serve.get_replica_context()
        return {
            "application": context.app_name,
            "deployment": context.deployment,
            "replica": context.replica_tag,
            "component_name": "replica",
            "skip_context_filter": True,
            "serve_access_log": True,  # so that `enable_access_log: false` holds for it
        }


class _WithoutServesOwnLines(logging.Filter):
    """Serve's line of a request knows neither key nor model, and that of joined calls the id of any one of them."""

    def __init__(self, keep_calls: bool) -> None:
        super().__init__()
        self._keep_calls = keep_calls

    def filter(self, record: logging.LogRecord) -> bool:
        is_serves = record.name == SERVE.name and getattr(record, "serve_access_log", False)
        return not is_serves or (self._keep_calls and str(record.msg).startswith("CALL "))
