"""What a load can be sent to: a server behind a port, or an engine in a process of its own. Both take plans and give records."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from benchmarks.serving.environments import Unavailable
from benchmarks.serving.http1 import request_bytes
from benchmarks.serving.numbered import Text
from benchmarks.serving.plan import Plan, Record, Request
from benchmarks.serving.processes import Program

START_S = 240
"""More than any start takes on a busy machine of two cores."""
Role = Literal["embedder", "reranker", "forward"]


class Target(Protocol):
    """`pause` holds it, and all it has started, still: only one is measured at a time."""

    name: str
    program: Program

    def embed(self, texts: Sequence[Text], hang_up_s: float | None = None, **headers: str) -> Request: ...
    def rerank(self, query: Text, passages: Sequence[Text]) -> Request: ...
    def run(self, plan: Plan) -> Record: ...


class Server:
    """`model` is what requests call the model; `path` is where OpenAI's embeddings are."""

    def __init__(self, name: str, program: Program, port: int, model: str, path: str = "/v1/embeddings") -> None:
        self.name = name
        self.program = program
        self.port = port
        self._model = model
        self._path = path

    def embed(self, texts: Sequence[Text], hang_up_s: float | None = None, **headers: str) -> Request:
        body = {"model": self._model, "input": [text.text for text in texts]}
        stated = {name.replace("_", "-"): value for name, value in headers.items()}
        return Request(request_bytes(self._path, body, stated), sum(text.tokens for text in texts), hang_up_s)

    def rerank(self, query: Text, passages: Sequence[Text]) -> Request:
        body = {"model": self._model, "query": query.text, "documents": [text.text for text in passages], "return_documents": False}
        return Request(request_bytes("/v1/rerank", body, {}), 0)

    def run(self, plan: Plan) -> Record:
        command = [sys.executable, "-m", "benchmarks.serving.load_client"]
        done = subprocess.run(command, input=pickle.dumps((self.port, plan)), stdout=subprocess.PIPE, check=True, start_new_session=True)
        return pickle.loads(done.stdout)

    def wait_until_ready(self, path: str | None = None, body: object = None) -> None:
        """Until it answers a request. Raises Unavailable."""
        content = json.dumps(body or {"model": self._model, "input": ["are you there?"]}).encode()
        url = f"http://127.0.0.1:{self.port}{path or self._path}"
        request = urllib.request.Request(url, content, {"content-type": "application/json"})
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.program.process.poll() is not None:
                raise Unavailable(f"did not start: {self.program.said_last()}")
            try:
                with urllib.request.urlopen(request, timeout=30):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        raise Unavailable(f"did not answer within {START_S} s: {self.program.said_last()}")


class InProcess:
    """An engine, or the bare forward, without any server: `in_process` runs it and the load in one process."""

    def __init__(self, name: str, role: Role, settings: Mapping[str, object], log: Path) -> None:
        self.name = name
        command = [sys.executable, "-m", "benchmarks.serving.in_process", role, json.dumps(settings)]
        self.program = Program(command, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def embed(self, texts: Sequence[Text], hang_up_s: float | None = None, **headers: str) -> Request:
        return Request([text.text for text in texts], sum(text.tokens for text in texts), hang_up_s)

    def rerank(self, query: Text, passages: Sequence[Text]) -> Request:
        return Request((query.text, [text.text for text in passages]), 0)

    def run(self, plan: Plan) -> Record:
        process = self.program.process
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump(plan, process.stdin)
        process.stdin.flush()
        try:
            return pickle.load(process.stdout)
        except EOFError:
            raise Unavailable(f"{self.name} ended: {self.program.said_last()}") from None

    def wait_until_ready(self) -> None:
        """Raises Unavailable."""
        self.run({})
