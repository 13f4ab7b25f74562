"""The keys file: what its rows say, what is wrong with it without quoting it, and that a change of it needs no restart."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from bgeserve.api import create_app
from bgeserve.api.keyring import KEY_VARIABLE, KEYS_FILE_VARIABLE, Keyring, keyring_of
from bgeserve.api.keys import RANDOM_BYTES, new_key, read_keys
from bgeserve.errors import SettingsError
from bgeserve.observe import Observer
from tests.api.backend import Stage
from tests.api.conftest import LIMITS
from tests.api.keyrings import made_row, signed
from tests.api.serving import serving


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text("".join(f"- {json.dumps(row)}\n" for row in rows))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


# -- rows ------------------------------------------------------------------------------------------------------------------------------


def test_a_row_says_all_that_a_key_may_do(file: Path) -> None:
    scope = {"lane": "bulk", "models": ["bge-m3"], "collections": ["docs@*"], "tokens_per_s": 5, "expires_at": "2031-01-01T00:00:00Z"}
    write(file, made_row("a", "page", **scope), made_row("b", "page", admin=True), made_row("c", read_only=True))
    first, second, third = read_keys(file)
    assert (first.id, first.name, first.lane) == (f"page-{first.digest.hex()[:8]}", "page", "bulk")
    assert (first.models, first.collections, first.tokens_per_s) == (("bge-m3",), ("docs@*",), 5)
    assert first.expires_at == datetime(2031, 1, 1, tzinfo=UTC)
    assert (first.admin, first.read_only, second.admin, third.read_only) == (False, False, True, True)
    assert (second.name, second.models, second.collections, second.tokens_per_s) == ("page", None, None, None)
    assert first.id != second.id


def test_rows_may_be_yaml_with_comments(file: Path) -> None:
    file.write_text(f"# of the page\n- name: page\n  sha256: {'ab' * 32}\n  expires_at: 2031-01-01T00:00:00Z\n")
    assert [key.expires_at for key in read_keys(file)] == [datetime(2031, 1, 1, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("patterns", "name", "matches"),
    [
        (None, "anything", True),
        (["docs"], "docs", True),
        (["docs"], "docs@2", False),
        (["docs"], "my-docs", False),
        (["docs@*"], "docs@2", True),
        (["docs@*"], "docs", False),
        (["*"], "docs", True),
        (["a*c*e"], "abcde", True),
        (["a*c*e"], "abcd", False),
        (["a.c"], "abc", False),
        (["a", "docs"], "docs", True),
        (["docs"], "docs\n", False),
        (["DOCS"], "docs", False),
    ],
)
def test_a_star_stands_for_any_characters_and_nothing_else_does(file: Path, patterns: Any, name: str, matches: bool) -> None:
    write(file, made_row("a", collections=patterns, models=patterns))
    (key,) = read_keys(file)
    assert (key.may_use_collection(name), key.may_use_model(name)) == (matches, matches)


def test_neither_key_nor_hash_is_in_a_repr(file: Path) -> None:
    write(file, made_row("a"))
    (key,) = read_keys(file)
    assert key.digest.hex() not in repr(key)
    assert repr(key.digest) not in repr(key)


def test_new_keys_are_long_random_and_known_by_their_prefix() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert RANDOM_BYTES * 8 == 256
    assert {(key[:4], len(key)) for key in made} == {("bge_", 4 + 43)}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[{name: page, sha256: geheim}]", "0.sha256: String should match"),
        ("[{name: page, key: geheim}]", "0.sha256: Field required; 0.key: Extra inputs are not permitted"),
        ("[{name: '-', sha256: " + "ab" * 32 + "}]", "0.name"),
        ("[{name: page, sha256: " + "ab" * 32 + ", lane: geheim}]", "0.lane: Input should be 'interactive' or 'bulk'"),
        ("[{name: page, sha256: " + "ab" * 32 + ", collections: ['geheim/x']}]", "0.collections.0"),
        ("[{name: page, sha256: " + "ab" * 32 + ", collections: []}]", "0.collections"),
        ("[{name: page, sha256: " + "ab" * 32 + ", tokens_per_s: 0}]", "0.tokens_per_s"),
        ("[{name: page, sha256: " + "ab" * 32 + ", expires_at: 2031-01-01}]", "0.expires_at: Input should have timezone info"),
        ("[{name: page, sha256: " + "ab" * 32 + ", admin: true, read_only: true}]", "admin and read_only are both true"),
        ("[{name: page, sha256: " + "ab" * 32 + "}, {name: other, sha256: " + "ab" * 32 + "}]", "one sha256 is there twice"),
        ("page: {key: geheim}", "the file: Input should be a valid list"),
        ("", "the file: Input should be a valid list"),
        ("[geheim", "not YAML"),
    ],
)
def test_what_is_wrong_with_a_keys_file_is_said_without_what_is_in_it(file: Path, content: str, problem: str) -> None:
    file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        keyring_of({KEYS_FILE_VARIABLE: str(file)})
    assert problem in caught.value.message
    assert str(file) in caught.value.message
    assert "geheim" not in caught.value.message


# -- which keys there are --------------------------------------------------------------------------------------------------------------


def test_keys_come_from_the_environment_and_from_a_mounted_file(file: Path) -> None:
    write(file, made_row("a", "page"))
    assert keyring_of({}) is None
    keyring = keyring_of({KEY_VARIABLE: " c ", KEYS_FILE_VARIABLE: str(file)})
    assert keyring is not None
    default, page, none = keyring.find(b"c"), keyring.find(b"a"), keyring.find(b"")
    assert default is not None
    assert page is not None
    assert (default.id, default.admin, page.name, page.admin, none) == ("default", True, "page", False, None)


def test_what_would_leave_it_unclear_who_may_ask_is_a_mistake(file: Path) -> None:
    with pytest.raises(SettingsError, match="BGE_SERVE_API_KEY is empty"):
        keyring_of({KEY_VARIABLE: " "})
    with pytest.raises(SettingsError, match="BGE_SERVE_API_KEYS_FILE is empty"):
        keyring_of({KEYS_FILE_VARIABLE: ""})
    with pytest.raises(SettingsError, match="cannot be read"):
        keyring_of({KEYS_FILE_VARIABLE: str(file)})
    write(file, made_row("a", "page"))
    with pytest.raises(SettingsError, match="only one of them can hold"):
        keyring_of({KEY_VARIABLE: "a", KEYS_FILE_VARIABLE: str(file)})


def test_a_file_without_rows_lets_nobody_in(file: Path, stage: Stage) -> None:
    file.write_text("[]")
    with serving(create_app(stage.service, LIMITS, keyring_of({KEYS_FILE_VARIABLE: str(file)}))) as url:
        assert httpx.get(f"{url}/v1/models").status_code == 401


# -- rotation --------------------------------------------------------------------------------------------------------------------------


def valid(keyring: Keyring, sent: Sequence[str]) -> list[str]:
    return [secret for secret in sent if keyring.find(secret.encode())]


def test_two_keys_of_one_name_overlap_while_one_follows_the_other(file: Path) -> None:
    old, new = made_row("old", "page"), made_row("new", "page")
    write(file, old)
    keyring = Keyring(path=file)
    said: list[list[str]] = []
    for rows in [(old, new), (new,), (old,), ()]:
        file.write_text(json.dumps(rows))
        said.append(valid(keyring, ["old", "new"]))
    assert said == [["old", "new"], ["new"], ["old"], []]


def test_a_mounted_secret_changes_by_a_link(tmp_path: Path) -> None:
    """As Kubernetes does it: keys.yaml -> ..data/keys.yaml, ..data -> a folder of this version."""
    for version, secret in [("1", "old"), ("2", "new")]:
        (tmp_path / version).mkdir()
        write(tmp_path / version / "keys.yaml", made_row(secret))
    same = (tmp_path / "1" / "keys.yaml").stat()
    os.utime(tmp_path / "2" / "keys.yaml", ns=(same.st_atime_ns, same.st_mtime_ns))
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "keys.yaml").symlink_to("..data/keys.yaml")
    keyring = Keyring(path=tmp_path / "keys.yaml")
    assert valid(keyring, ["old", "new"]) == ["old"]
    (tmp_path / "..tmp").symlink_to("2")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert valid(keyring, ["old", "new"]) == ["new"]


@pytest.mark.parametrize("wrong", ["", "[geheim", "- {name: page}", "page: {key: geheim}", None])
def test_a_wrong_new_file_keeps_the_old_keys_and_is_told_once(file: Path, caplog: pytest.LogCaptureFixture, wrong: str | None) -> None:
    counted: list[tuple[str, float]] = []
    write(file, made_row("old"))
    keyring = Keyring(path=file, observer=Observer(lambda kind, name, value, tags: counted.append((name, value))))
    if wrong is None:
        file.unlink()
    else:
        file.write_text(wrong)
    for _ in range(3):
        assert valid(keyring, ["old", "", "geheim"]) == ["old"]
    assert counted == [("keys_file_rejected_total", 1)]
    assert caplog.text.count("the API keys stay as they were") == 1
    assert "geheim" not in caplog.text
    write(file, made_row("new"))
    assert valid(keyring, ["old", "new"]) == ["new"]


def test_a_key_that_is_revoked_while_connected_gets_no_further_answer(file: Path, stage: Stage) -> None:
    write(file, made_row("a", "page"), made_row("b", "page"))
    with serving(create_app(stage.service, LIMITS, Keyring(path=file))) as url, httpx.Client(base_url=url) as client:
        connections: set[Any] = set()

        def ask(secret: str) -> int:
            with client.stream("POST", "/v1/encode", json={"input": "a"}, headers=signed(secret)) as response:
                connections.add(response.extensions["network_stream"].get_extra_info("client_addr"))
                response.read()
                return response.status_code

        assert [ask("a"), ask("b")] == [200, 200]
        write(file, made_row("b", "page"))
        assert [ask("a"), ask("b"), ask("a")] == [401, 200, 401]
        assert len(connections) == 1, "all of it was one kept-alive connection"
    assert stage.embedding.started == 3
