"""What says that two vectors can be compared: one string per (weights, pooling, dimensions, instructions).

Equal weights have one fingerprint from whichever folder they were loaded; another fine-tune of the same architecture has another. bfloat16,
float16 and float32 runs of one model share theirs: all are read out in float32 and differ by less than 1e-4 in cosine, so replicas on
different hardware can serve one index.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import xxhash

CHUNK_BYTES = 4 * 2**20
"""Read, not mapped: a mapped file counts as memory of the process until the system takes it back."""


def fingerprint(weight_files: Iterable[Path], *, pooling: str, dimensions: int, prefixes: tuple[str, ...]) -> str:
    """Such as `xxh3-1c9f.../cls/1024/float/3f21b0c4`. Reads every weight file once, as loading will; 2 GB take about half a second."""
    weights = xxhash.xxh3_128()
    for file in weight_files:
        weights.update(file.stat().st_size.to_bytes(8, "little"))
        with file.open("rb") as opened:
            while chunk := opened.read(CHUNK_BYTES):
                weights.update(chunk)
    said = xxhash.xxh3_64("\0".join(prefixes).encode()).hexdigest()[:8] if any(prefixes) else "none"
    return f"xxh3-{weights.hexdigest()}/{pooling}/{dimensions}/float/{said}"
