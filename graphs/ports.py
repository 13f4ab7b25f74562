"""Ports of this machine for what a start brings along."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

LOWEST, BEYOND = 20_000, 32_000
"""Below those that the kernel gives to outgoing connections (Linux: from 32,768): between the look and the listener's start, Ray opens
hundreds of them."""


def free_port() -> int:
    """One on which nothing listens, on any interface."""
    while True:
        port = random.randrange(LOWEST, BEYOND)
        with suppress(OSError), socket.create_server(("", port)):
            return port


def free_ports(count: int) -> list[int]:
    """So many different ones."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)
