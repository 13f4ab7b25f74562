"""The environment in which Ray has to start, on every node: HAProxy as the front, Serve's throughput mode, a calm controller, a quick end
for what is dead or hangs, and little patience with slow clients.

Without it everything works, 12 to 20 times slower at the door (measured on a no-op). `up` starts its Ray in it, and `k8s render` puts it
into every pod.
"""

from __future__ import annotations

HEADERS_WITHIN_S = 10
IDLE_CLIENT_S = 60

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
    # A client that neither sends nor reads may hold a connection an hour, as Ray has it.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(IDLE_CLIENT_S),
    # And headers may drip in for ever. With splice-request, nobody notices that a client hangs up whose body came in packets of its own, as
    # httpx sends it: its work is done, and HAProxy spins until then. Ray has no variables for these, but writes this one as it stands.
    "RAY_SERVE_HAPROXY_RETRY_ON": f"conn-failure\n    timeout http-request {HEADERS_WITHIN_S}s\n    no option splice-request",
    # HAProxy's own log has whole URLs. The discard port: nobody listens there.
    "RAY_SERVE_HAPROXY_LOG_TARGET": "127.0.0.1:9",
}
