"""Data jobs: millions of documents into a service that runs, while people search it; or vectors into files, without a service.

    index("s3://bucket/corpus/", collection="docs")     what `bge-serve index` calls
    index(dataset, collection="docs")                   a Ray Dataset of rows
    dataset.map_batches(Encode, ...)                    vectors as columns: docs/jobs.md

The work is done in the cluster (`jobs_writer.py`); this is the driver's side, which starts it, watches it and keeps its dead letters.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Self, TextIO, cast

import ray
from ray.data import Dataset
from ray.exceptions import RayActorError, RayTaskError

from bgeserve.cli.index import add_arguments, print_done
from bgeserve.cli.progress import Bars
from bgeserve.errors import BgeServeError, InvalidRequest, Unavailable
from bgeserve.settings import SearchGraphSettings
from graphs.jobs_embedders import settings_of
from graphs.jobs_vectors import Encode
from graphs.jobs_writer import DeadLetter, JobWriter, Progress

__all__ = ["Encode", "Progress", "index"]

CALLS_IN_FLIGHT = 8
CONNECT_ATTEMPTS = 3
"""The process that Ray's head starts for a Ray Client crashes now and then before it serves (ray-project/ray#63202)."""
POLL_S = 0.5
EXIT_DEAD_LETTERS = 3


def index(
    source: str | Dataset,
    *,
    collection: str = "default",
    app: str = "search",
    calls_in_flight: int = CALLS_IN_FLIGHT,
    own_embedders: tuple[int, SearchGraphSettings] | None = None,
    on_progress: Callable[[Progress], object] = lambda progress: None,
) -> Progress:
    """Put the source's documents into a collection of the application `app` of the connected Ray cluster (`ray.init`).

    source: a path or URI that the cluster's nodes can read, or a Dataset whose rows are as `bgeserve/rows.py` says. Repeat it after an
    interruption: what is stored is not embedded again. own_embedders: how many the job has of its own, and the settings that the
    application is deployed with; None: the deployed ones embed. on_progress: called about twice a second, with each dead letter once.
    Raises InvalidRequest (no such source), NotFound (no such application), FingerprintMismatch, StorageFull; Unavailable and Overloaded
    once a call has waited five minutes.
    """
    writer = cast(Any, JobWriter).remote(collection, app, calls_in_flight, own_embedders)
    running = writer.run.remote(source)
    try:
        while not ray.wait([running], timeout=POLL_S)[0]:
            on_progress(ray.get(writer.progress.remote()))
        last: Progress = ray.get(writer.progress.remote())
        on_progress(last)
        ray.get(running)
        return last
    except RayTaskError as error:
        if isinstance(error.cause, BgeServeError):
            raise error.cause from None
        raise
    except RayActorError as death:
        raise Unavailable(f"the job has lost its place in the cluster ({death}): start it again, it goes on from where it was") from death
    finally:
        ray.kill(writer)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bge-serve index", description="Put a source's documents into a collection, as a Ray Data job.")
    add_arguments(parser)
    args = parser.parse_args(argv)
    if (args.own_embedders is None) != (args.config is None):
        parser.error("--own-embedders and --config go together")
    try:
        return _run(args)
    except BgeServeError as error:
        print(f"bge-serve: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(args: argparse.Namespace) -> int:
    started = perf_counter()
    if args.source == "stdlib:":
        raise InvalidRequest("stdlib: is this machine's own, and indexed without a job", field="source")
    app = args.app or "search"
    # A path is relative to where it is typed, wherever in the cluster it is read.
    source = args.source if "://" in args.source else str(Path(args.source).absolute())
    letters_path = Path(args.dead_letters or "dead-letters.jsonl")
    if source == str(letters_path.absolute()):
        raise InvalidRequest(f"{args.source} is the source: --dead-letters is written anew and must be another", field="dead_letters")
    own = (args.own_embedders, settings_of(Path(args.config), app)) if args.own_embedders else None
    _connect(args.ray_address)
    with _DeadLetters(letters_path) as dead_letters, Bars(visible=not args.json) as bars:
        show = bars.add("indexing", None, "documents")

        def watch(progress: Progress) -> None:
            dead_letters.add(progress.dead_letters)
            show(_documents(progress), _estimated_documents(progress))

        last = index(
            source,
            collection=args.collection,
            app=app,
            calls_in_flight=args.calls_in_flight or CALLS_IN_FLIGHT,
            own_embedders=own,
            on_progress=watch,
        )
        show(_documents(last), _documents(last))
    done = {name: getattr(last, name) for name in ("upserted", "unchanged", "tokens", "truncated", "rejected")}
    print_done(args, {**done, "dead_letters": str(letters_path) if last.rejected else None, "took_s": round(perf_counter() - started, 3)})
    return EXIT_DEAD_LETTERS if last.rejected else 0


def _connect(address: str | None) -> None:
    for attempts_left in reversed(range(CONNECT_ATTEMPTS)):
        try:
            ray.init(address or os.environ.get("RAY_ADDRESS") or "auto", log_to_driver=False, logging_level=logging.WARNING)
            return
        except ConnectionError as error:
            if isinstance(error, ConnectionAbortedError) and attempts_left:
                continue
            where = "--ray-address (or RAY_ADDRESS) must say where the service's Ray runs, as `bge-serve up` prints it"
            raise Unavailable(f"there is no Ray cluster to connect to: {where} ({error})") from error


def _documents(progress: Progress) -> int:
    return progress.upserted + progress.unchanged + progress.rejected


def _estimated_documents(progress: Progress) -> int | None:
    """Of the whole source, by the bytes that those so far had of it."""
    if not progress.total_bytes or not progress.source_bytes:
        return None
    return max(_documents(progress), _documents(progress) * progress.total_bytes // progress.source_bytes)


class _DeadLetters:
    """JSON lines: {"where", "why", "row"}. Of this run alone: whoever repeats a job meets what is still wrong again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        self._path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, dead_letters: Sequence[DeadLetter]) -> None:
        if self._file is None and dead_letters:
            self._file = self._path.open("w", encoding="utf-8")
        for letter in dead_letters:
            assert self._file is not None
            line = {"where": letter.where, "why": letter.why, "row": json.loads(letter.row)}
            self._file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
