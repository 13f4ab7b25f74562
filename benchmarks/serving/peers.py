"""The servers that ours is compared with, each as its own documents say to run it on a CPU: Infinity (torch, ONNX), SIE, and FlagEmbedding
behind FastAPI. All compute MiniLM in float32 with every core.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving.environments import Environment, Unavailable
from benchmarks.serving.processes import Program
from benchmarks.serving.systems import MODEL_NAME, Place, System, ready
from benchmarks.serving.targets import Server, Target
from graphs.ports import free_port

INFINITY = Environment("infinity", "3.11", ("torch==2.13.0", "infinity-emb[torch,server,optimum]==0.0.78"))
SIE = Environment("sie", "3.12", ("sie-server==0.10.1",))

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "SIE_TELEMETRY_DISABLED": "1"}


def infinity_torch() -> System:
    name = "Infinity torch"
    return System(name, lambda place: _infinity(name, place, ["--model-id", str(place.model), "--engine", "torch"], place.work))


def infinity_onnx() -> System:
    name = "Infinity ONNX"

    def start(place: Place) -> Target:
        # Infinity gives optimum the file's path where that wants its name: from inside the folder the two are the same.
        folder = _onnx_folder(place, INFINITY.ensure(place.peers))
        engine = ["--model-id", ".", "--engine", "optimum", "--pooling-method", "mean", "--onnx-disable-optimize"]
        return _infinity(name, place, engine, folder)

    return System(name, start)


def sie() -> System:
    name = "SIE"

    def start(place: Place) -> Target:
        command = [SIE.ensure(place.peers) / "sie-server", "serve", "-p", str(port := free_port()), "--host", "127.0.0.1", "-d", "cpu"]
        cache = {"HF_HOME": str(_hub_cache(place))}
        program = Program([*command, "-m", HUB_NAME, "--preload", HUB_NAME], place.log(name), OFFLINE | cache)
        return ready(Server(name, program, port, HUB_NAME))

    return System(name, start)


def flagembedding() -> System:
    name = "FlagEmbedding"

    def start(place: Place) -> Target:
        command = [sys.executable, "-m", "benchmarks.serving.flagembedding_server", str(port := free_port()), str(place.model)]
        program = Program([*command, str(place.max_tokens)], place.log(name))
        return ready(Server(name, program, port, MODEL_NAME))

    return System(name, start)


def _infinity(name: str, place: Place, engine: Sequence[str], folder: Path) -> Target:
    port = free_port()
    command = [INFINITY.ensure(place.peers) / "infinity_emb", "v2", *engine, "--served-model-name", MODEL_NAME, "--device", "cpu"]
    common = ["--no-bettertransformer", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    program = Program([*command, *common], place.log(name), OFFLINE, folder)
    return ready(Server(name, program, port, MODEL_NAME, "/embeddings"))


def _onnx_folder(place: Place, tools: Path) -> Path:
    """The model as ONNX with its layers fused, which Infinity would do itself with an older optimum. Made when first needed."""
    exported, fused = place.peers / "minilm-onnx", place.peers / "minilm-onnx-fused"
    if not (fused / "model_optimized.onnx").is_file():
        export = ["export", "onnx", "--model", place.model, "--task", "feature-extraction", "--library", "transformers", exported]
        _optimum(tools, export)
        _optimum(tools, ["onnxruntime", "optimize", "--onnx_model", exported, "-O2", "-o", fused])
    return fused


def _optimum(tools: Path, arguments: Sequence[str | Path]) -> None:
    done = subprocess.run([tools / "optimum-cli", *arguments], capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise Unavailable(f"optimum-cli {arguments[0]} failed: {lines[-1][:300]}")


def _hub_cache(place: Place) -> Path:
    """The folder in the shape in which the hub's own client would have left it: SIE takes names, not folders."""
    home = place.work / "huggingface"
    model = home / "hub" / f"models--{HUB_NAME.replace('/', '--')}"
    (model / "refs").mkdir(parents=True, exist_ok=True)
    (model / "snapshots").mkdir(exist_ok=True)
    (model / "refs" / "main").write_text(REVISION)
    if not (snapshot := model / "snapshots" / REVISION).exists():
        snapshot.symlink_to(place.model)
    return home
