"""Who waits for an answer, and for how long: goes with a request through every stage, and between processes."""

from __future__ import annotations

from bgeserve.deadline import NO_DEADLINE, Deadline
from bgeserve.travels import travels
from bgeserve.types import Lane


@travels
class Caller:
    lane: Lane = "interactive"
    deadline: Deadline = NO_DEADLINE
    tenant: str = ""
    """Whose work it is: tenants share a model fairly."""
    sender: str = ""
    """The process that sends this call, and what it knows of work that no replica has (`unmet.py`)."""
    waiting_bytes: int = 0
    refused_bytes: int = 0
    traceparent: str = ""
    """Of the span that this work is a part of (`tracing.py`); empty where nothing is traced."""


ANYONE = Caller()
A_JOB = Caller("bulk")
