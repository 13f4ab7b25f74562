from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.serving.processes import Program, is_dead

GRANDCHILD_IN_ITS_OWN_SESSION = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_what_a_program_starts_is_found_paused_and_ended_with_it(tmp_path: Path) -> None:
    program = Program([sys.executable, "-c", GRANDCHILD_IN_ITS_OWN_SESSION], tmp_path / "log")
    try:
        while not (said := program.log.read_text().strip()):
            time.sleep(0.01)
        both = [program.process.pid, int(said)]
        assert program.pids() == sorted(both)
        program.pause()
        while any(_state(pid) != "T" for pid in both):
            time.sleep(0.01)
    finally:
        program.stop()
    assert all(is_dead(pid) for pid in both)
    assert program.process.returncode is not None


def test_whoever_has_the_number_of_one_that_has_gone_is_left_alone(tmp_path: Path) -> None:
    program = Program([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log")
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        program._seen[other.pid] = 0  # pyright: ignore[reportPrivateUsage]  # of one that began before this machine
        assert program.pids() == [program.process.pid]
        program.stop()
        assert not is_dead(other.pid)
    finally:
        program.stop()
        other.kill()
        other.wait()


def test_what_a_leader_leaves_behind_is_found(tmp_path: Path) -> None:
    leaves_a_child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    program = Program([sys.executable, "-c", leaves_a_child], tmp_path / "log")
    program.process.wait()
    (child,) = program.pids()
    assert program.pids() == [child]
    program.stop()
    assert is_dead(child)


def test_nobody_else_is_touched(tmp_path: Path) -> None:
    program = Program([sys.executable, "-c", "print('done')"], tmp_path / "log")
    program.process.wait()
    program.stop()
    assert not is_dead(os.getpid())
    assert program.said_last() == "done"


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
