"""The environment in which Ray has to start, on every node: HAProxy as the front, and Serve's throughput mode.

Without it everything works, 12 to 20 times slower at the door (measured on a no-op). `k8s/` states the same for clusters.
"""

from __future__ import annotations

FRONT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
}
