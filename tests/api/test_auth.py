"""With a key, nothing but the page and the two probes answers without it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from bgeserve.api import create_app
from bgeserve.api.keys import KEY_VARIABLE, KEYS_FILE_VARIABLE, ApiKey, keys_from
from bgeserve.errors import SettingsError
from tests.api.backend import Stage
from tests.api.conftest import LIMITS

KEY = "geheim-ß"
KEYS = (ApiKey("page", KEY), ApiKey("nightly", "other", lane="bulk"))


@pytest.fixture
async def locked(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(stage.service, LIMITS, KEYS))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/models", "/openapi.json", "/v1/collections/default", "/nowhere", "/healthz/"])
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
    ],
)
async def test_no_key_no_answer(locked: httpx.AsyncClient, path: str, authorization: bytes | None) -> None:
    response = await locked.get(path, headers=None if authorization is None else {b"authorization": authorization})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "unauthorized")
    assert KEY not in response.text


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer"])
async def test_the_key_opens(locked: httpx.AsyncClient, scheme: bytes) -> None:
    response = await locked.get("/v1/models", headers={b"authorization": scheme + b" " + KEY.encode()})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz"])
async def test_probes_and_the_page_need_none(locked: httpx.AsyncClient, path: str) -> None:
    assert (await locked.get(path)).status_code == 200


async def test_the_description_says_that_a_key_is_needed(locked: httpx.AsyncClient) -> None:
    description = (await locked.get("/openapi.json", headers={b"authorization": b"Bearer " + KEY.encode()})).json()
    assert description["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    secured = {path for path, methods in description["paths"].items() for operation in methods.values() if "security" in operation}
    assert set(description["paths"]) - secured == {"/healthz", "/readyz"}


async def test_a_key_is_a_tenant_and_has_its_own_lane_unless_the_request_states_one(locked: httpx.AsyncClient, stage: Stage) -> None:
    for key, headers in [(KEY, {}), ("other", {}), ("other", {"x-lane": "interactive"})]:
        signed = {"authorization": b"Bearer " + key.encode(), **headers}
        assert (await locked.post("/v1/encode", json={"input": "a"}, headers=signed)).status_code == 200
    assert stage.embedding.lanes == ["interactive", "bulk", "interactive"]
    assert stage.embedding.tenants == ["page", "nightly", "nightly"]


def test_keys_come_from_the_environment_and_from_a_mounted_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("page: {key: a}\nnightly: {key: b, lane: bulk}\n")
    assert keys_from({}) == ()
    assert keys_from({KEY_VARIABLE: " c ", KEYS_FILE_VARIABLE: str(file)}) == (
        ApiKey("default", "c"),
        ApiKey("page", "a"),
        ApiKey("nightly", "b", "bulk"),
    )
    assert "'a'" not in repr(ApiKey("page", "a"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("page: {key: geheim, lane: fast}", "page.lane: Input should be 'interactive' or 'bulk'"),
        ("page: {key: ''}", "page.key"),
        ("page: {secret: geheim}", "page.key: Field required"),
        ("page: geheim", "page"),
        ("[geheim", "not YAML"),
        ("a: {key: geheim}\nb: {key: geheim}", "may be there once"),
        ("default: {key: geheim}", "`default` is BGE_SERVE_API_KEY's"),
    ],
)
def test_what_is_wrong_with_a_keys_file_is_said_without_the_keys(tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        keys_from({KEY_VARIABLE: "one", KEYS_FILE_VARIABLE: str(file)})
    assert problem in caught.value.message
    assert "geheim" not in caught.value.message


def test_an_empty_key_and_a_missing_file_are_mistakes(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="empty"):
        keys_from({KEY_VARIABLE: " "})
    with pytest.raises(SettingsError, match="cannot be read"):
        keys_from({KEYS_FILE_VARIABLE: str(tmp_path / "none.yaml")})
