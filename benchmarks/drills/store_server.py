"""A stand-in for a Qdrant server that can be told to fail: HTTP of Qdrant's own shapes, as far as our store asks for them, over the local
mode of its client. Keeps everything in memory. Needs bge-serve[qdrant].
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python
from qdrant_client import QdrantClient, models

Mood = Literal["well", "failing", "silent"]
"""failing: answers 500. silent: takes requests, and does not answer."""
Body = Mapping[str, Any]


class StoreServer:
    def __init__(self) -> None:
        self._client = QdrantClient(":memory:")
        self._one_at_a_time = threading.Lock()
        self._mood: Mood = "well"
        self._well = threading.Event()
        self._well.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def being(self, mood: Mood) -> Generator[None]:
        self._mood = mood
        self._well.clear()
        try:
            yield
        finally:
            self._mood = "well"
            self._well.set()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: Body) -> tuple[int, object]:
        if self._mood == "failing":
            return 500, {"status": {"error": "the drill says so"}}
        self._well.wait()
        for wanted, pattern, call in _CALLS:
            if method == wanted and (found := re.fullmatch(pattern, path)):
                with self._one_at_a_time:
                    try:
                        return 200, {"result": to_jsonable_python(call(self._client, *found.groups(), body)), "status": "ok", "time": 0.0}
                    except ValueError as error:  # what the local mode has no better name for: no such collection
                        return 404, {"status": {"error": str(error)}}
        return 400, {"status": {"error": f"the stand-in knows no {method} {path}"}}


def _handler(server: StoreServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = orjson.loads(self.rfile.read(length)) if length else {}
            status, answer = server.answer(self.command, urlsplit(self.path).path, body)
            content = orjson.dumps(answer)
            with suppress(ConnectionError):  # who was not answered in time has gone
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the drill counts."""

    return Handler


def _query(client: QdrantClient, name: str, body: Body) -> object:
    asked = models.QueryRequest.model_validate(body)
    return client.query_points(
        name,
        query=asked.query,  # type: ignore[arg-type]
        using=asked.using,
        query_filter=asked.filter,
        limit=asked.limit or 10,
        with_payload=bool(asked.with_payload),
    )


def _scroll(client: QdrantClient, name: str, body: Body) -> object:
    asked = models.ScrollRequest.model_validate(body)
    points, following = client.scroll(
        name, asked.filter, limit=asked.limit or 10, offset=asked.offset, with_payload=asked.with_payload or False
    )
    return {"points": points, "next_page_offset": following}


def _create(client: QdrantClient, name: str, body: Body) -> object:
    asked = models.CreateCollection.model_validate(body)
    return client.create_collection(name, asked.vectors, asked.sparse_vectors, metadata=asked.metadata)


def _retrieve(client: QdrantClient, name: str, body: Body) -> object:
    asked = models.PointRequest.model_validate(body)
    return client.retrieve(name, asked.ids, with_payload=asked.with_payload or False, with_vectors=asked.with_vector or False)


def _count(client: QdrantClient, name: str, body: Body) -> object:
    return client.count(name, models.CountRequest.model_validate(body).filter)


def _delete(client: QdrantClient, name: str, body: Body) -> object:
    return client.delete(name, TypeAdapter[Any](models.PointsSelector).validate_python(body))


def _change_aliases(client: QdrantClient, body: Body) -> object:
    return client.update_collection_aliases(models.ChangeAliasesOperation.model_validate(body).actions)


_NAMED = r"/collections/([^/]+)"
_CALLS: tuple[tuple[str, str, Callable[..., object]], ...] = (
    ("GET", "/collections", lambda client, body: client.get_collections()),
    ("GET", "/aliases", lambda client, body: client.get_aliases()),
    ("POST", "/collections/aliases", _change_aliases),
    ("GET", _NAMED, lambda client, name, body: client.get_collection(name)),
    ("PUT", _NAMED, _create),
    ("PATCH", _NAMED, lambda client, name, body: client.update_collection(name, metadata=body["metadata"])),
    ("DELETE", _NAMED, lambda client, name, body: client.delete_collection(name)),
    ("PUT", f"{_NAMED}/points", lambda client, name, body: client.upsert(name, models.PointsList.model_validate(body).points)),
    (
        *("PUT", f"{_NAMED}/points/vectors"),
        lambda client, name, body: client.update_vectors(name, models.UpdateVectors.model_validate(body).points),
    ),
    ("POST", f"{_NAMED}/points/delete", _delete),
    ("POST", f"{_NAMED}/points", _retrieve),
    ("POST", f"{_NAMED}/points/scroll", _scroll),
    ("POST", f"{_NAMED}/points/query", _query),
    ("POST", f"{_NAMED}/points/count", _count),
    # The local mode looks at every point anyway.
    ("PUT", f"{_NAMED}/index", lambda client, name, body: {"operation_id": 0, "status": "completed"}),
)
