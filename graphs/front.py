"""The environment in which Ray has to start, on every node: HAProxy as the front, Serve's throughput mode, a calm controller, and a quick
end for what is dead or hangs.

Without it everything works, 12 to 20 times slower at the door (measured on a no-op). `up` starts its Ray in it, and `k8s render` puts it
into every pod.
"""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

FRONT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Ten times a second, as Ray has it, the controller's loop and what it asks of others take 4 % of a core from the models.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # After three checks in vain a dead proxy is started anew; at Ray's ten seconds each, nobody got in for half a minute.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # One that hangs finishes nothing: as long as it is waited for, those whose calls it has cannot ask another.
    "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
    # Throughput mode keeps a thousand lines back, and loses them with the replica; it saves nothing (24 us a line, or 23).
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
}

OTHERS = ("RAY_ADDRESS", "RAY_TMPDIR", "RAY_AUTH_TOKEN")
"""What the user's environment may say of another Ray."""


def own_environment(folder: Path) -> dict[str, str]:
    """What a Ray of one's own reads when it starts: the front, a token that only this user can read, and nothing that another start could
    share. The folder's path must be short: HAProxy's sockets are in it."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    stats, metrics, fallback = _free_ports(3)
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
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
    }
    inherited = {name: value for name, value in os.environ.items() if name not in OTHERS}
    return inherited | own


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("", 0)) for _ in range(count)]
    try:
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
