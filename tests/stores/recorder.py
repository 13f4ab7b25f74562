"""A local HTTP server that writes down what a Vespa client sends, and answers as a test tells it to. It is no Vespa: it knows no query."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Answer = tuple[int, Any]


@dataclass
class Request:
    method: str
    path: str
    """As it came, percent signs and all, without its parameters."""
    parameters: dict[str, str]
    body: Any
    headers: dict[str, str]


def hits(*found: dict[str, Any], total: int | None = None, coverage: dict[str, Any] | None = None) -> Answer:
    """docs.vespa.ai/en/reference/querying/default-result-format.html"""
    children = [{"id": "index:bgeserve_content/0/c4ca", "relevance": one.pop("relevance", 0.0), "fields": one} for one in map(dict, found)]
    whole = {"coverage": 100, "documents": 3, "full": True, "nodes": 1, "results": 1, "resultsFull": 1}
    root: dict[str, Any] = {"id": "toplevel", "relevance": 1.0, "fields": {"totalCount": len(found) if total is None else total}}
    root |= {"coverage": coverage or whole, **({"children": children} if children else {})}
    return 200, {"root": root}


@dataclass
class Recorder:
    url: str
    requests: list[Request] = field(default_factory=list[Request])
    searches: list[Answer] = field(default_factory=list[Answer])
    """What the next searches are answered with; then nothing is found."""
    documents: Callable[[Request], Answer] = lambda request: (200, {"pathId": request.path, "id": "id:ns:type::id"})
    """docs.vespa.ai/en/reference/api/document-v1.html#json"""

    def sent(self, method: str, path: str = "") -> list[Request]:
        """And forget it all."""
        found = [request for request in self.requests if request.method == method and request.path.startswith(path)]
        self.requests.clear()
        return found

    def searched(self, *answers: Answer) -> Sequence[Any]:
        """The bodies of the searches since the last look."""
        self.searches += answers
        return [request.body for request in self.sent("POST", "/search/")]

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        if request.path == "/search/":
            return self.searches.pop(0) if self.searches else hits()
        return self.documents(request)


@contextmanager
def recorder() -> Generator[Recorder]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("content-encoding") == "gzip":
                content = gzip.decompress(content)
            url = urlsplit(self.path)
            body = json.loads(content) if content else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = found.answer(Request(self.command, url.path, dict(parse_qsl(url.query)), body, headers))
            sent = json.dumps(answer).encode() if not isinstance(answer, str) else answer.encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_DELETE = _serve

        def log_message(self, format: str, *args: Any) -> None:
            """Not on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Recorder(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()
