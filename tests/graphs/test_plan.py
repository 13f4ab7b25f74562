"""`bge-serve plan`: what it says of a config under rates, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from graphs import plan

RATES = "at_s,model,requests_per_s,tokens_per_request\n0,small,50,100\n300,small,0,1\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    models = {"small": {"model": "BAAI/bge-small-en-v1.5", "gpus": 0.5, "replicas": {"min": 1, "max": 9, "cold_start_s": 10}}}
    application = {"name": "embed", "import_path": "graphs.embed:build", "route_prefix": "/", "args": {"embedders": models}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"applications": [application]}))
    return path


def planned(config: Path, rates: str = RATES, *options: str) -> list[str]:
    trace = config.with_name("rates.csv")
    trace.write_text(rates)
    return [str(config), "--trace", str(trace), *(options or ("--tokens-per-s", "small=2000"))]


def test_replicas_gpus_and_limits_as_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main([*planned(config), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    (model,) = said["models"]
    assert model["model"] == "small"
    assert 3 <= model["most_replicas"] <= 9  # 2.5 replicas' worth
    assert model["most_gpus"] == model["most_replicas"] / 2
    assert model["gpu_hours"] == pytest.approx(model["replica_s"] / 2 / 3600)
    assert [limit["what"] for limit in said["limits"]] == ["ingress", "controller"]


def test_a_person_gets_tables(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(planned(config, RATES, "--tokens-per-s", "small=2000", "--searches-per-s", "20")) == 0
    said = capsys.readouterr().out
    assert "small" in said
    assert "store" in said


@pytest.mark.parametrize(
    ("rates", "options", "said"),
    [
        (RATES.replace("small", "large"), (), "the trace has the model 'large'; the config's models are ['small']"),
        (RATES, ("--tokens-per-s", "other=5"), "--tokens-per-s does not say how fast small is"),
        ("at_s\n", (), "model, requests_per_s, tokens_per_request are missing"),
    ],
)
def test_what_cannot_be_planned(config: Path, rates: str, options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(planned(config, rates, *options)) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("speed", ["small", "small=0", "small=fast", "=5"])
def test_a_speed_is_a_model_and_a_number(config: Path, speed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        plan.main(planned(config, RATES, "--tokens-per-s", speed))
    assert f"MODEL=N with N above 0, not {speed}" in capsys.readouterr().err
