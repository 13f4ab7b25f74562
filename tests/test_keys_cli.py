"""`bge-serve keys new`: what it prints opens the service, what it writes does not say how."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from bgeserve.api.keyring import Keyring
from bgeserve.api.keys import parse_keys
from bgeserve.cli import main


def new(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["keys", "new", *arguments])
    said = capsys.readouterr()
    return code, said.out.strip(), said.err


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_the_key_is_printed_once_and_its_row_has_the_hash_alone(capsys: pytest.CaptureFixture[str]) -> None:
    code, key, said = new(capsys, "page")
    assert code == 0
    assert key.startswith("bge_")
    assert key not in said
    row = json.loads(said[said.index("- {") + 2 :])
    assert row == {"name": "page", "sha256": sha256(key.encode()).hexdigest()}


def test_a_key_that_is_added_opens_at_once(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    _, first, _ = new(capsys, "page", "--into", str(file))
    keyring = Keyring(path=file)
    file.write_text(f"# ours\n{file.read_text().rstrip()}")
    file.chmod(0o640)
    scope = ("--lane", "bulk", "--models", "bge-m3", "b*", "--collections", "docs@*", "--tokens-per-s", "50")
    _, second, said = new(capsys, "page", "--into", str(file), *scope, "--admin", "--expires-at", "2099-01-01T00:00:00Z")
    found = keyring.find(second.encode())
    assert found is not None
    assert (found.lane, found.models, found.collections, found.tokens_per_s, found.admin) == (
        "bulk",
        ("bge-m3", "b*"),
        ("docs@*",),
        50,
        True,
    )
    assert found.expires_at is not None
    assert found.id in said
    assert keyring.find(first.encode()) is not None
    assert file.read_text().startswith("# ours\n")
    assert first not in file.read_text()
    assert second not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(file.parent.iterdir()) == [file]


def test_an_empty_list_may_be_added_to_and_a_link_stays_one(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    file.write_text("[]\n")
    link = file.with_name("link.yaml")
    link.symlink_to(file)
    _, key, _ = new(capsys, "page", "--into", str(link))
    assert link.is_symlink()
    assert [one.name for one in parse_keys(file.read_text(), "")] == ["page"]
    assert Keyring(path=link).find(key.encode()) is not None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["-page-"], "arguments"),
        (["no name"], "the new row: 0.name"),
        (["page", "--collections", "a/b"], "0.collections.0"),
        (["page", "--tokens-per-s", "0"], "0.tokens_per_s: Input should be greater than 0"),
        (["page", "--expires-at", "tomorrow"], "0.expires_at"),
        (["page", "--expires-at", "2099-01-01"], "0.expires_at: Input should have timezone info"),
        (["page", "--admin", "--read-only"], "admin and read_only are both true"),
    ],
)
def test_a_wrong_row_makes_no_key(capsys: pytest.CaptureFixture[str], file: Path, arguments: list[str], problem: str) -> None:
    try:
        code, key, said = new(capsys, *arguments, "--into", str(file))
    except SystemExit as usage:
        code, key, said = int(usage.code or 0), "", capsys.readouterr().err
    assert code in (1, 2)
    assert key == ""
    assert problem in said
    assert not file.exists()


@pytest.mark.parametrize("content", ["page: {key: a}\n", "[{name: page}]", "- {name: page}\n", "[a"])
def test_a_file_that_is_wrong_already_stays_as_it_is(capsys: pytest.CaptureFixture[str], file: Path, content: str) -> None:
    file.write_text(content)
    code, key, said = new(capsys, "page", "--into", str(file))
    assert (code, key) == (1, "")
    assert f"{file} with the new row" in said
    assert file.read_text() == content
