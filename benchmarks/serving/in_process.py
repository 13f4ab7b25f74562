"""The engine that the service serves, without the service: takes plans on its standard input and computes them in this process.

    python -m benchmarks.serving.in_process embedder|reranker|forward SETTINGS_AS_JSON

`forward` is not even the engine: one text at a time is tokenised and computed, with as many threads as one of a replica's workers has.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
from collections.abc import Callable

from benchmarks.serving.loops import Send, run_plan
from benchmarks.serving.plan import OK, Reply, Request
from bgeserve.engine import EmbedderEngine, RerankerEngine
from bgeserve.models.embedder import load_embedder
from bgeserve.models.runtime import worker_init
from bgeserve.settings import EmbedderSettings, RerankerSettings


def main() -> None:
    role, settings = sys.argv[1], json.loads(sys.argv[2])
    # What libraries print must not come between the records.
    records = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    send = SENDERS[role](settings)
    while True:
        try:
            plan = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(asyncio.run(run_plan(plan, send)), records)
        records.flush()


def embedder(settings: dict[str, object]) -> Send:
    engine = EmbedderEngine("engine", EmbedderSettings.model_validate(settings))

    async def send(request: Request) -> Reply:
        embeddings = await engine.encode(request.payload)
        return Reply(OK, int(sum(embeddings.tokens)))

    return send


def reranker(settings: dict[str, object]) -> Send:
    engine = RerankerEngine("engine", RerankerSettings.model_validate(settings))

    async def send(request: Request) -> Reply:
        query, passages = request.payload
        scores = await engine.rerank(query, passages)
        return Reply(OK, int(sum(scores.tokens)))

    return send


def forward(settings: dict[str, object]) -> Send:
    stated = EmbedderSettings.model_validate(settings)
    worker_init(stated)
    model = load_embedder(stated)

    async def send(request: Request) -> Reply:
        sequences = model.tokenize(request.payload)
        model.forward(sequences, [("dense",)] * len(sequences))
        return Reply(OK, sum(sequence.cost for sequence in sequences))

    return send


SENDERS: dict[str, Callable[[dict[str, object]], Send]] = {"embedder": embedder, "reranker": reranker, "forward": forward}


if __name__ == "__main__":
    main()
