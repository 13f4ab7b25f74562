"""A program in a cluster: what each replica was given of the GPUs in Ray's books, and what is left of them, as JSON."""

from __future__ import annotations

import json
import sys

import ray
from ray.util.state import list_actors

if __name__ == "__main__":
    ray.init(log_to_driver=False)
    alive = list_actors(filters=[("state", "=", "ALIVE")], detail=True)
    replicas = [actor for actor in alive if (actor.name or "").startswith("SERVE_REPLICA")]
    shares = {actor.name.split("#")[1]: (actor.required_resources or {}).get("GPU", 0) for actor in replicas}
    sys.stdout.write(json.dumps({"shares": shares, "left": ray.available_resources().get("GPU", 0)}))
