"""With keys, nothing but the page and the two probes answers without one; and a key in a URL is refused wherever it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hmac import compare_digest

import httpx
import pytest

from bgeserve.api import app, create_app, keys
from bgeserve.api.auth import IN_URLS
from tests.api.backend import Stage
from tests.api.conftest import LIMITS
from tests.api.keyrings import keyring_of_keys, made_key, signed

KEY = "geheim-ß"
PAGE = made_key(KEY, "page")
NIGHTLY = made_key("other", "nightly", lane="bulk")
YESTERDAY = datetime.now(UTC) - timedelta(days=1)
OLD = made_key("old", "page", expires_at=YESTERDAY)
KEYS = (PAGE, NIGHTLY, OLD, made_key("soon", "page", expires_at=datetime.now(UTC) + timedelta(days=1)))


@pytest.fixture
async def locked(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(stage.service, LIMITS, keyring_of_keys(*KEYS)))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/models", "/openapi.json", "/v1/collections/default", "/nowhere", "/healthz/", "/v1/status"])
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer wrong",
        b"Basic " + KEY.encode(),
        KEY.encode(),
        b"Bearer " + KEY.encode()[:-1],
        b"Bearer \xff\xfe",
        b"Bearer " + PAGE.digest.hex().encode(),
    ],
)
async def test_no_key_no_answer(locked: httpx.AsyncClient, path: str, authorization: bytes | None) -> None:
    response = await locked.get(path, headers=None if authorization is None else {b"authorization": authorization})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "unauthorized")
    assert KEY not in response.text


async def test_a_missing_key_and_a_wrong_one_are_told_apart(locked: httpx.AsyncClient) -> None:
    assert "needs its API key" in (await locked.get("/v1/models")).text
    assert "does not know it, or no longer" in (await locked.get("/v1/models", headers=signed("wrong"))).text


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer"])
async def test_the_key_opens(locked: httpx.AsyncClient, scheme: bytes) -> None:
    response = await locked.get("/v1/models", headers={b"authorization": scheme + b" " + KEY.encode()})
    assert response.status_code == 200


async def test_an_expired_key_is_refused_by_its_id(locked: httpx.AsyncClient) -> None:
    response = await locked.get("/v1/models", headers=signed("old"))
    assert response.status_code == 401
    assert f"the API key {OLD.id} has expired, at {YESTERDAY.isoformat()}" in response.json()["error"]["message"]
    assert (await locked.get("/v1/models", headers=signed("soon"))).status_code == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz"])
@pytest.mark.parametrize("key", [None, "wrong", "old", KEY])
async def test_probes_and_the_page_need_none(locked: httpx.AsyncClient, path: str, key: str | None) -> None:
    assert (await locked.get(path, headers=signed(key) if key else None)).status_code == 200


async def test_the_description_says_where_a_key_is_needed(locked: httpx.AsyncClient) -> None:
    description = (await locked.get("/openapi.json", headers=signed(KEY))).json()
    assert description["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    secured = {path for path, methods in description["paths"].items() for operation in methods.values() if "security" in operation}
    assert set(description["paths"]) - secured == {"/healthz", "/readyz"}


async def test_a_key_is_a_tenant_and_has_its_own_lane_unless_the_request_states_one(locked: httpx.AsyncClient, stage: Stage) -> None:
    for key, headers in [(KEY, {}), ("other", {}), ("other", {"x_lane": "interactive"})]:
        assert (await locked.post("/v1/encode", json={"input": "a"}, headers=signed(key, **headers))).status_code == 200
    assert stage.embedding.lanes == ["interactive", "bulk", "interactive"]
    assert stage.embedding.tenants == ["page", "nightly", "nightly"]


async def test_every_row_is_compared_and_in_constant_time(locked: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def recording(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare_digest(one, other)

    monkeypatch.setattr(keys, "compare_digest", recording)
    for sent, status in [(KEY, 200), ("wrong", 401), ("x" * 10_000, 401)]:
        compared.clear()
        assert (await locked.get("/v1/models", headers=signed(sent))).status_code == status
        assert [one for one, _ in compared] == [key.digest for key in KEYS]
        assert {(len(one), len(other)) for one, other in compared} == {(32, 32)}, "lengths of keys would tell"


@pytest.mark.parametrize("name", [*sorted(IN_URLS), "API_KEY", "Token"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/search", "/healthz", "/", "/nowhere"])
async def test_a_key_in_the_url_is_refused_and_not_repeated(
    locked: httpx.AsyncClient, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, name: str, path: str
) -> None:
    for client in (locked, http):
        response = await client.get(f"{path}?limit=1&{name}={'canary-key'}", headers=signed(KEY))
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["param"] == name.lower()
        assert "does not belong in a URL" in error["message"]
        assert "authorization: Bearer" in error["message"]
        assert "canary" not in response.text
    assert "canary" not in caplog.text


async def test_a_key_in_the_url_is_refused_in_the_dialects_shape(locked: httpx.AsyncClient) -> None:
    response = await locked.post("/inference?api_key=x", json={})
    assert (response.status_code, response.json()["state"]) == (400, "error")


def test_no_operation_has_a_parameter_that_could_be_taken_for_a_key() -> None:
    taken = {name for operation in app.OPERATIONS if operation.method == "GET" for name in operation.request.model_fields}
    assert taken
    assert not taken & IN_URLS
