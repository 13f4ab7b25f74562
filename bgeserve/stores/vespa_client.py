"""Calls to a Vespa: documents in and out, queries, and what its failures are called here. Knows no collection.

docs.vespa.ai/en/reference/api/document-v1.html and .../api/query.html. A put or a removal is acknowledged when it is in the transaction log
(synced, unless services.xml says otherwise) and visible to queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar, cast

import httpr
from requests import HTTPError
from vespa.application import Vespa, VespaSync
from vespa.exceptions import VespaError
from vespa.io import VespaQueryResponse, VespaResponse

from bgeserve.errors import ServiceError, StorageFull, StoreError, Unavailable
from bgeserve.store_settings import VespaSettings
from bgeserve.stores.secrets import secret

T = TypeVar("T")
Fields = dict[str, Any]

PARALLEL_WRITES = 8
"""Vespa takes documents one a request."""
_WRITE_RETRIES = 2
"""Of a write that found no connection, or was answered with 429 (Vespa has too many in hand); each waits up to a second."""
_BUSY = frozenset({429, 503, 504})


class VespaClient:
    """One connection pool. Raises StoreError when a secret is not there, Unavailable when Vespa is not, ServiceError when it fails."""

    def __init__(self, settings: VespaSettings) -> None:
        token = secret(settings.token_env, "token_env") or None
        certificate, key = _file(settings.certificate, "certificate"), _file(settings.key, "key")
        application = Vespa(settings.url.rstrip("/"), cert=certificate, key=key, vespa_cloud_secret_token=token)
        try:
            self._session = application.get_sync_session()
        except httpr.RequestError as error:
            raise StoreError(
                f"store.certificate {certificate}, with its key, is not what PEM files hold: {error}", field="certificate"
            ) from error
        self._session.timeout = settings.timeout_s
        self._reads = VespaSync(application, session=self._session, num_retries_429=0)
        self._writes = VespaSync(application, session=self._session, num_retries_429=_WRITE_RETRIES)
        self._pool = ThreadPoolExecutor(PARALLEL_WRITES, thread_name_prefix="vespa")
        self._cluster = settings.cluster
        self._timeout_ms = round(settings.timeout_s * 1000)

    def close(self) -> None:
        self._pool.shutdown()
        self._session.close()

    def has_type(self, document_type: str) -> bool:
        """Whether the deployed application has this document type: it answers 404 for a document that it lacks, 400 for such a type."""

        def status() -> int | None:
            try:
                return self._reads.get_data(document_type, "none", namespace=document_type, timeout=self._timeout).get_status_code()
            except (VespaError, HTTPError) as error:
                if _status(error) == 400:
                    return 400
                raise

        return call(status) != 400

    def put(self, document_type: str, namespace: str, documents: Mapping[str, Fields]) -> None:
        """Documents by their ids; those that were there are replaced."""
        self._write_all(
            lambda id: _called(self._writes.feed_data_point, document_type, id, documents[id], namespace, timeout=self._timeout),
            documents,
        )

    def remove(self, document_type: str, namespace: str, ids: Iterable[str]) -> None:
        self._write_all(lambda id: _called(self._writes.delete_data, document_type, id, namespace, timeout=self._timeout), ids)

    def remove_all(self, document_type: str, namespace: str) -> None:
        """Of a namespace: Vespa looks at every document of the type, for half a time limit a request."""
        limits = {"timeChunk": f"{self._timeout_ms // 2}ms", "timeout": self._timeout}
        call(self._writes.delete_all_docs, self._cluster, document_type, namespace, **limits)

    def query(self, document_type: str, where: str, summary: str, hits: int, parameters: Mapping[str, object]) -> VespaQueryResponse:
        """Raises Unavailable rather than answer from a part of what is stored."""
        body = {
            "yql": f"select * from sources * where {where}",
            "model.restrict": document_type,
            "presentation.summary": summary,
            "presentation.format.tensors": "short-value",
            "hits": hits,
            "timeout": self._timeout,
            "ranking.softtimeout.enable": False,
            **parameters,
        }
        answer = cast(VespaQueryResponse, _called(self._reads.query, body))
        root: Mapping[str, Any] = answer.get_json().get("root", {})
        if errors := root.get("errors"):
            raise ServiceError(f"Vespa failed: {errors}")
        if not root.get("coverage", {}).get("full", True):
            raise Unavailable(f"Vespa searched a part of what it holds: {root['coverage']}")
        return answer

    @property
    def _timeout(self) -> str:
        return f"{self._timeout_ms}ms"

    def _write_all(self, write: Callable[[str], object], ids: Iterable[str]) -> None:
        done = [self._pool.submit(write, id) for id in ids]
        # All of them, also when one fails: none may come after whatever is done about that.
        wait(done)
        for one in done:
            one.result()


def call(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Raises Unavailable, StorageFull or ServiceError for what Vespa and the network answer."""
    try:
        return function(*args, **kwargs)
    except httpr.RequestError as error:
        raise Unavailable(f"Vespa does not answer: {error}") from error
    except (VespaError, HTTPError) as error:
        raise _failure(_status(error), str(error)) from error
    except (ValueError, RuntimeError) as error:
        raise ServiceError(f"what answered is no Vespa: {error}") from error


def _called(function: Callable[..., object], *args: Any, **kwargs: Any) -> VespaResponse:
    answer = cast(VespaResponse, call(function, *args, **kwargs))
    # The client takes a 404 for an answer.
    if not answer.is_successful():
        raise _failure(answer.get_status_code(), str(answer.get_json()))
    return answer


def _failure(status: int | None, message: str) -> ServiceError:
    kind = Unavailable if status in _BUSY else StorageFull if status == 507 else ServiceError
    return kind(f"Vespa failed: {message}")


def _status(error: BaseException) -> int | None:
    """Of the HTTP answer behind an error, which may be its cause."""
    for one in (error, error.__cause__):
        if isinstance(one, HTTPError) and one.response is not None:
            return one.response.status_code
    return None


def _file(path: Path | None, setting: str) -> str | None:
    if path is not None and not path.is_file():
        raise StoreError(f"store.{setting} names the file {path}, which is not here", field=setting)
    return None if path is None else str(path)
