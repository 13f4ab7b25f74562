"""What a fault costs those who use the service: `python -m benchmarks.drills`.

A drill is a row (`drill.py`): what is broken, how, and the rule (`rule.py`) for what that may cost; one file per kind of fault: `kills.py`,
`stalls.py`, `stores.py`, `rollouts.py`, `head.py`. `cluster.py` is what is struck (`services.py`: the configs), `clients.py` who uses it
and knows what is right, `soak.py` many faults over a long time.
"""
