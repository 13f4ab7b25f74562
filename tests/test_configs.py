"""Every config that we ship is right, every misspelling in it is refused by name, and nothing is deployed that cannot be placed."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from bgeserve.errors import SettingsError
from bgeserve.settings import EmbedderSettings, IngressSettings
from graphs import placement
from graphs.check import check, parse, read
from graphs.placement import Demand

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
QUICKSTART = next(path for path in CONFIGS if path.stem == "quickstart")
FREE_NAMES = ("embedders", "rerankers")
"""Their keys are names that the user gives."""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_is_right(path: Path) -> None:
    config, demands = parse(read(path))
    assert config.http_options.host == "127.0.0.1"
    assert {demand.deployment.partition("-")[0] for demand in demands} <= {"embedder", "reranker", "retriever", "ingress"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_misspelt_key_is_refused_by_name(path: Path) -> None:
    config = read(path)
    keys = list(_keys(config))
    assert len(keys) > 8
    for *parents, key in keys:
        misspelt = copy.deepcopy(config)
        owner: Any = misspelt
        for part in parents:
            owner = owner[part]
        owner[f"{key}x"] = owner.pop(key)
        with pytest.raises(SettingsError) as caught:
            parse(misspelt)
        assert f"{key}x" in caught.value.message


def _keys(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if not (path and path[-1] in FREE_NAMES):
                yield (*path, key)
            yield from _keys(value, (*path, key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _keys(value, (*path, i))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            {"deployments": [{"name": "embeder-all-minilm"}]},
            "deployments.embeder-all-minilm: unknown key; did you mean 'embedder-all-minilm'?",
        ),
        ({"deployments": [{"name": "ingress", "max_ongoing_request": 3}]}, "deployments[0].max_ongoing_request: unknown key"),
        ({"deployments": [{"name": "ingress", "ray_actor_options": {"num_gpu": 1}}]}, "ray_actor_options.num_gpu: unknown key"),
        ({"deployments": [{"name": "ingress", "autoscaling_config": {"min_replica": 1}}]}, "autoscaling_config.min_replica: unknown key"),
        ({"runtime_env": {"env_var": {}}}, "runtime_env.env_var: unknown key; did you mean 'env_vars'?"),
        ({"import_path": "graphs.serch:build"}, "import_path: graphs.serch:build cannot be imported"),
        ({"import_path": "graphs.search:biuld"}, "the module graphs.search has no 'biuld'"),
        ({"import_path": "graphs.search:parts"}, "neither an application nor a function"),
        ({"args": {}}, "applications[0].args.embedders: Field required"),
    ],
)
def test_what_ray_would_ignore_or_find_late_is_refused(extra: dict[str, Any], message: str) -> None:
    config: Any = read(QUICKSTART)
    config["applications"][0] |= extra
    with pytest.raises(SettingsError) as caught:
        parse(config)
    assert message in caught.value.message


def test_a_wrong_value_is_refused_with_its_path() -> None:
    config: Any = read(QUICKSTART)
    config["applications"][0]["args"]["embedders"]["all-minilm"]["workers"] = 99
    config["applications"][0]["args"]["search"]["reranker"] = "nobody"
    with pytest.raises(SettingsError) as caught:
        parse(config)
    assert "args.embedders.all-minilm.workers: Input should be less than or equal to 4" in caught.value.message


def test_options_in_the_config_count_for_placement() -> None:
    config: Any = read(QUICKSTART)
    config["applications"][0]["deployments"] = [
        {"name": "ingress", "num_replicas": 7, "ray_actor_options": {"num_cpus": 3, "resources": {"front": 1}}}
    ]
    demand = next(demand for demand in parse(config)[1] if demand.deployment == "ingress")
    assert demand == Demand("ingress", {"CPU": 3, "front": 1}, 7)


def test_what_the_machine_does_not_have_is_refused() -> None:
    demands = [Demand("embedder", {"CPU": 1, "GPU": 0.5}, 2), Demand("ingress", {"CPU": 0.5}, 1)]
    assert placement.problems(demands, [{"CPU": 4, "GPU": 1}], "this machine") == []
    assert placement.problems(demands, [{"CPU": 4}], "this machine") == ["embedder needs 0.5 GPU for each replica; this machine has 0"]
    assert placement.problems(demands, [{"CPU": 2, "GPU": 1}], "this machine") == [
        "the deployments need 2.5 CPU in all (embedder 2 x 1, ingress 1 x 0.5); this machine has 2"
    ]
    # Two nodes of two CPUs are not one of four.
    wide = [Demand("embedder", {"CPU": 3}, 1)]
    assert placement.problems(wide, [{"CPU": 2}, {"CPU": 2}], "the cluster") == ["embedder needs 3 CPU for each replica; the cluster has 2"]


def test_the_quickstart_fits_one_core() -> None:
    assert placement.problems(parse(read(QUICKSTART))[1], [{"CPU": 1}], "this machine") == []


@pytest.mark.parametrize(("text", "message"), [("a: [", "is not YAML"), ("[]", "should be a valid dictionary"), (None, "cannot be read")])
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        check(path)


def test_the_keys_file_that_the_environment_names_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.yaml"
    monkeypatch.setenv("BGE_SERVE_API_KEYS_FILE", str(file))
    with pytest.raises(SettingsError, match=r"keys.yaml cannot be read"):
        check(QUICKSTART)
    file.write_text("- {name: page, sha256: geheim}")
    with pytest.raises(SettingsError, match=r"0.sha256: String should match pattern") as caught:
        check(QUICKSTART)
    assert "geheim" not in caught.value.message
    file.write_text(f"- {{name: page, sha256: {'ab' * 32}}}")
    assert check(QUICKSTART).applications


def test_the_command_says_what_is_wrong_and_exits_with_1(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(QUICKSTART.read_text().replace("workers:", "wrokers:", 1))
    done = _bge_serve("check", str(path), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{path}: applications[0].args.embedders.all-minilm.wrokers: unknown key; did you mean 'workers'?\n"
    assert _bge_serve("check", str(QUICKSTART), cwd=tmp_path).returncode == 0


def test_a_package_in_the_working_directory_does_not_take_the_place_of_ours(tmp_path: Path) -> None:
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "__init__.py").write_text("raise SystemExit('a stranger ran')")
    done = _bge_serve("check", str(QUICKSTART), cwd=tmp_path)
    assert done.returncode == 1
    assert "would be imported in place of bge-serve's own 'graphs'" in done.stderr


def test_a_graph_of_the_users_own_is_found_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from ray import serve\n\n@serve.deployment\nclass Mine: ...\n\napp = Mine.bind()\n")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"applications": [{"name": "mine", "import_path": "mine:app"}]}))
    assert _bge_serve("check", str(path), cwd=tmp_path).stdout == f"{path}: mine: ok\n"


def _bge_serve(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("bge-serve")
    return subprocess.run([command, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("settings", [{"workers": 2, "reserved_workers": 2}, {"workers": 1, "reserved_workers": 1}])
def test_a_worker_must_be_left_for_bulk(settings: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="at least one must be left for bulk work"):
        EmbedderSettings.model_validate({"model": "m", **settings})
    EmbedderSettings.model_validate({"model": "m", "workers": 3, "reserved_workers": 2})


def test_the_largest_body_must_fit_into_what_may_be_in_progress() -> None:
    with pytest.raises(ValidationError, match="max_inflight_bytes"):
        IngressSettings(max_body_bytes=2000, max_inflight_bytes=1000)
