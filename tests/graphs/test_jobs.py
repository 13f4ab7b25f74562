"""What the command of a data job refuses before it connects to anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphs.jobs import main

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stdlib:"], "stdlib: is this machine's own"),
        (["dead-letters.jsonl"], "dead-letters.jsonl is the source"),
        (
            ["a.csv", "--own-embedders", "1", "--config", str(CONFIGS / "embed-only.yaml")],
            "has no application 'search' of graphs.search:build",
        ),
        (["a.csv", "--own-embedders", "1", "--config", "nowhere.yaml"], "cannot be read"),
    ],
)
def test_it_says_in_one_line_what_is_wrong(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert main(arguments) == 1
    assert said in capsys.readouterr().err


def test_embedders_of_its_own_need_the_config(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["a.csv", "--own-embedders", "1"])
    assert ended.value.code == 2
    assert "--own-embedders and --config go together" in capsys.readouterr().err
