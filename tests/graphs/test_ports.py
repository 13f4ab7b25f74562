"""Ports that nobody else takes between the look and the listener's start."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from graphs.ports import free_ports


def test_they_differ_and_can_be_listened_on_together() -> None:
    ports = free_ports(20)
    listeners = [socket.create_server(("", port)) for port in ports]
    assert len({listener.getsockname()[1] for listener in listeners}) == 20
    assert set(ports).isdisjoint(free_ports(20))
    for listener in listeners:
        listener.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux gives to outgoing connections")
def test_none_is_one_that_an_outgoing_connection_may_get() -> None:
    lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not any(lowest <= port <= highest for port in free_ports(20))
