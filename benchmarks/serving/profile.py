"""Where a request's time goes: CPU of each process of the service per request, and the functions in which the ingress and the embedder's
replica spend theirs (py-spy).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.serving.bench import Bench, Fleet
from benchmarks.serving.processes import cpu_s, title
from benchmarks.serving.report import Findings, Section
from benchmarks.serving.systems import MODEL_NAME, PATIENT, ours
from benchmarks.serving.targets import Target
from benchmarks.serving.throughput import SATURATING_CLIENTS

INGRESS, REPLICA = "ingress", f"embedder-{MODEL_NAME}"
TOP = 12
SAMPLES_PER_S = 100
PY_SPY_START_S = 2
CPU_COLUMNS = ("process", "CPU ms a request", "share of the service's CPU")
TOP_COLUMNS = ("process", "function", "share of the time")


def run(bench: Bench) -> Findings:
    with bench.started([ours("bge-serve float32", dtype="float32", **PATIENT)]) as fleet, bench.progress("profile", 3) as step:
        cpu_rows: list[list[str]] = []
        top_rows: list[list[str]] = []
        for target in fleet.targets:
            step("CPU of each process")
            cpu_rows += cpu_per_request(bench, fleet, target)
            for deployment in (INGRESS, REPLICA):
                step(f"py-spy on the {deployment}")
                top_rows += hottest(bench, fleet, target, deployment)
        notes = [f"{SATURATING_CLIENTS} clients, one text a request, {bench.options.seconds:g} s", *fleet.notes()]
    cpu = Section("Profile: CPU per request, the client's excluded", CPU_COLUMNS, cpu_rows, notes)
    how = "only while they hold Python's lock: tensors are computed without it; uvloop's own time is in Thread.run"
    return Findings([cpu, Section("Profile: the functions with the most time of their own", TOP_COLUMNS, top_rows, [how])])


def cpu_per_request(bench: Bench, fleet: Fleet, target: Target) -> list[list[str]]:
    pids = target.program.pids()
    before = {pid: cpu_s(pid) for pid in pids}
    record = fleet.run(target, {"all": bench.closed(target, SATURATING_CLIENTS, 1)})
    alive = [pid for pid in target.program.pids() if pid in before]
    used: Counter[str] = Counter()
    for pid in alive:
        used[short_title(pid)] += cpu_s(pid) - before[pid]
    requests = len(record.outcomes["all"])
    total = sum(used.values())
    rows = [[name, f"{1000 * seconds / requests:.2f}", f"{seconds / total:.1%}"] for name, seconds in used.most_common() if seconds > 0]
    return [*rows, ["all", f"{1000 * total / requests:.2f}", "100%"]]


def hottest(bench: Bench, fleet: Fleet, target: Target, deployment: str) -> list[list[str]]:
    pid = next((pid for pid in target.program.pids() if short_title(pid).endswith(f":{deployment}")), None)
    if pid is None or (spy := py_spy()) is None:
        return [[deployment, "no such process" if pid is None else "py-spy is not installed", "-"]]
    load = bench.closed(target, SATURATING_CLIENTS, 1, seconds=bench.options.seconds + PY_SPY_START_S)
    duration_s = max(1, round(bench.options.seconds))
    # py-spy cannot attach to a process that is stopped.
    target.program.resume()
    with TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks.txt"
        command = [spy, "record", "--pid", str(pid), "--format", "raw", "--rate", str(SAMPLES_PER_S), "--gil", "--output", str(stacks)]
        recording = subprocess.Popen(
            [*command, "--duration", str(duration_s)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            fleet.run(target, {"all": load})
        finally:
            recording.wait(timeout=60)
        counts = self_time(stacks.read_text().splitlines()) if stacks.exists() else {}
    rows = [[deployment, name, f"{share:.1%}"] for name, share in shares_of(counts, SAMPLES_PER_S * duration_s)]
    return rows or [[deployment, "py-spy saw nothing", "-"]]


def py_spy() -> str | None:
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.exists() else shutil.which("py-spy")


def self_time(stacks: Sequence[str]) -> Counter[str]:
    """Samples by the innermost frame: py-spy writes each stack from outside to inside, then how often it was seen."""
    counts: Counter[str] = Counter()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        counts[frames.rpartition(";")[2]] += int(count)
    return counts


def shares_of(counts: Mapping[str, int], samples: int) -> list[tuple[str, float]]:
    """Of all the samples that were taken, in the first line; then of those functions that have most."""
    return [("all that holds Python's lock", sum(counts.values()) / samples)] + [
        (name, count / samples) for name, count in Counter(counts).most_common(TOP)
    ]


def short_title(pid: int) -> str:
    """`ray::ServeReplica:embed:ingress` without the method that runs just now; of a program its name."""
    words = title(pid).split(" ")
    if words[0].startswith("ray::"):
        return words[0].partition(".")[0]
    names = [Path(word).name for word in words if word and not word.startswith("-")]
    return next((name for name in names if not name.startswith("python")), "?")
