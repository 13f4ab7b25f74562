"""The environment in which Ray has to start, on every node: HAProxy as the front, Serve's throughput mode, and a calm controller.

Without it everything works, 12 to 20 times slower at the door (measured on a no-op). `up` starts its Ray in it, and `k8s render` puts it
into every pod.
"""

from __future__ import annotations

FRONT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Ten times a second, as Ray has it, the controller's loop and what it asks of others take 4 % of a core from the models.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # Throughput mode keeps a thousand lines back, and loses them with the replica; it saves nothing (24 us a line, or 23).
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
}
