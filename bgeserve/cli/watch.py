"""`bge-serve status --watch`: a service as it is now, again and again. Rates are what the totals have grown by since the look before.

Knows rows of numbers and how they change. A service that does not answer is said to, and asked again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import monotonic

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bgeserve.cli.output import make_table, print_json
from bgeserve.client import Client
from bgeserve.errors import BgeServeError, NotFound
from bgeserve.model_load import ModelLoad
from bgeserve.protocols import Readiness
from bgeserve.types import CollectionInfo, ModelStatus

STATUS_COLUMNS = ("model", "role", "what", "protocol", "available", "replicas")
LOAD_COLUMNS = ("model", "replicas", "backlog s", "tokens/s at most", "tokens", "refused", "late")
RATE_COLUMNS = ("model", "replicas", "backlog s", "tokens/s", "at most", "refused/s", "late/s")
COLLECTION_COLUMNS = ("collection", "documents", "state", "legs", "fingerprint")


@dataclass(frozen=True, slots=True)
class Look:
    """What a service said at one time."""

    readiness: Readiness
    statuses: Sequence[ModelStatus]
    loads: Sequence[ModelLoad]
    collections: Sequence[CollectionInfo]
    at: float = field(default_factory=monotonic)

    @staticmethod
    def at_service(client: Client) -> Look:
        return Look(client.ready(), client.statuses(), loads_of(client), _collections(client))


def watch(client: Client, every_s: float, *, as_json: bool) -> int:
    """Until it is interrupted: on a terminal in place, into a pipe one below the other; as JSON a line for each look."""
    before: Look | None = None
    console = Console()
    with Live(console=console, auto_refresh=False, screen=console.is_terminal and not as_json) as live:
        while True:
            try:
                look = Look.at_service(client)
            except BgeServeError as error:
                shown, before = Text(error.message), None
                said: dict[str, object] = {"error": error.message}
            else:
                rates = rates_between(before, look)
                shown, said, before = _shown(look, rates), _said(look, rates), look
            if as_json:
                print_json(said)
            elif console.is_terminal:
                live.update(shown, refresh=True)
            else:
                console.print(shown)
            time.sleep(every_s)


@dataclass(frozen=True, slots=True)
class Rates:
    """Of one model, per second; 0 where a replica that went has taken its total with it."""

    tokens: float = 0.0
    refused: float = 0.0
    expired: float = 0.0


def rates_between(before: Look | None, now: Look) -> Mapping[str, Rates]:
    if before is None:
        return {}
    earlier, passed_s = {load.name: load for load in before.loads}, now.at - before.at

    def grown(total: int, from_total: int) -> float:
        return max(0, total - from_total) / passed_s

    return {
        load.name: Rates(
            grown(load.tokens_total, was.tokens_total),
            grown(load.refused_total, was.refused_total),
            grown(load.expired_total, was.expired_total),
        )
        for load in now.loads
        if (was := earlier.get(load.name)) is not None
    }


def loads_of(client: Client) -> list[ModelLoad]:
    try:
        return client.loads()
    except NotFound:
        return []  # a service of an earlier version


def status_row(status: ModelStatus) -> tuple[object, ...]:
    replicas = ", ".join(f"{count} {state}" for state, count in status.replicas.items())
    return status.name, status.role, status.model, status.protocol, "yes" if status.available else "no", replicas or "none"


def load_row(load: ModelLoad) -> tuple[object, ...]:
    numbers = (f"{load.backlog_s:.2f}", f"{load.tokens_per_s:.0f}", load.tokens_total, load.refused_total, load.expired_total)
    return load.name, load.replicas, *numbers


def collection_row(collection: CollectionInfo) -> tuple[object, ...]:
    return collection.name, collection.count, collection.state, " ".join(collection.legs), collection.fingerprint or "empty"


def _rate_row(load: ModelLoad, rates: Rates | None) -> tuple[object, ...]:
    measured = ("", "", "") if rates is None else (f"{rates.tokens:,.0f}", f"{rates.refused:.1f}", f"{rates.expired:.1f}")
    return load.name, load.replicas, f"{load.backlog_s:.2f}", measured[0], f"{load.tokens_per_s:,.0f}", *measured[1:]


def _shown(look: Look, rates: Mapping[str, Rates]) -> Group:
    waiting_for = ", ".join(look.readiness.waiting_for)
    tables = [
        make_table(STATUS_COLUMNS, [status_row(status) for status in look.statuses]),
        make_table(RATE_COLUMNS, [_rate_row(load, rates.get(load.name)) for load in look.loads]),
    ]
    if look.collections:
        tables.append(make_table(COLLECTION_COLUMNS, [collection_row(collection) for collection in look.collections]))
    return Group(Text("ready" if look.readiness.ready else f"not ready: waiting for {waiting_for}"), *tables)


def _said(look: Look, rates: Mapping[str, Rates]) -> dict[str, object]:
    return {
        **asdict(look.readiness),
        "statuses": [asdict(status) for status in look.statuses],
        "loads": [asdict(load) for load in look.loads],
        "per_s": {name: asdict(each) for name, each in rates.items()},
        "collections": [asdict(collection) for collection in look.collections],
    }


def _collections(client: Client) -> list[CollectionInfo]:
    try:
        return client.collections()
    except NotFound:
        return []  # a service of models alone
