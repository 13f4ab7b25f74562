"""One number is set in a YAML text, and not a character of the rest is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bgeserve.errors import SettingsError
from graphs.config_edit import with_number

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))

BLOCK = """\
# A comment, and a list that is not indented.
models:
- name:  "a"     # quoted, aligned
  args:
      cpus:   2  # aligned

      replicas:
        min: 1
        # of the nested block

  # of the next one
- {name: b, args: {cpus: 1, 'model': x}}
"""


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        (["models", 0, "args"], "# aligned\n\n      replicas", "# aligned\n      tokens: 512\n\n      replicas"),
        (["models", 0, "args", "replicas"], "min: 1\n", "min: 1\n        tokens: 512\n"),
        (["models", 0], "quoted, aligned\n", "quoted, aligned\n  tokens: 512\n"),
        (["models", 1, "args"], "'model': x}", "'model': x, tokens: 512}"),
        ([], "x}}\n", "x}}\ntokens: 512\n"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_line_or_an_entry_is_added_and_nothing_else(path: list[str | int], before: str, after: str, newline: str) -> None:
    text = BLOCK.replace("\n", newline)
    edited = with_number(text, path, "tokens", 512)
    assert edited == BLOCK.replace(before, after).replace("\n", newline)
    assert with_number(edited, path, "tokens", 512) == edited
    assert with_number(edited, path, "tokens", 9) == edited.replace("tokens: 512", "tokens: 9")


def test_a_value_is_replaced_with_its_comment_left_alone() -> None:
    assert with_number("a:\n  tokens:   700   # was fine\n  b: 1", ["a"], "tokens", 8192) == "a:\n  tokens:   8192   # was fine\n  b: 1"
    assert with_number('{"a": {"tokens":700}}', ["a"], "tokens", 5) == '{"a": {"tokens":5}}'
    assert with_number("a:\n  tokens: null\n", ["a"], "tokens", 5) == "a:\n  tokens: 5\n"


def test_a_text_without_a_last_line_break() -> None:
    assert with_number("a:\n  b: 1", ["a"], "tokens", 5) == "a:\n  b: 1\n  tokens: 5\n"


@pytest.mark.parametrize(
    "text",
    [
        "base: &base {b: 1}\na: *base\n",
        "base: &base\n  b: 1\na: *base\n",
        "base: &base {tokens: &n 1}\na: {tokens: *n}\n",
        "a: {b: 1}\nc: &anchored {b: 2}\na: *anchored\n",
        "a: 5\n",
        "b: {a: 1}\n",
    ],
)
def test_what_would_change_more_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="by hand"):
        with_number(text, ["a"], "tokens", 5)


def test_what_a_merge_key_brings_is_overridden_here_alone() -> None:
    text = "base: &base {b: 1, tokens: 2}\na:\n  <<: *base\n  c: 3\n"
    assert with_number(text, ["a"], "tokens", 5) == text + "  tokens: 5\n"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_model_of_every_shipped_config(config: Path) -> None:
    text = config.read_text()
    (application,) = yaml.safe_load(text)["applications"]
    paths = [["applications", 0, "args", kind, name] for kind in ("embedders", "rerankers") for name in application["args"].get(kind, {})]
    assert paths
    for path in paths:
        edited = with_number(text, path, "max_batch_tokens", 4321)
        assert edited.count("4321") == 1
        lines = [line for line in edited.splitlines(keepends=True) if "4321" not in line]
        assert lines == [line for line in text.splitlines(keepends=True) if line in lines]
        assert len(text.splitlines()) - len(lines) in (0, 1)
