"""`bge-serve tune-batch CONFIG`: measures each model of a Serve config on this machine and chooses its `max_batch_tokens`.

Knows configs, and how what was measured is shown and written. Does not know how it is measured (`bgeserve.tuning`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bgeserve.cli.output import print_table
from bgeserve.cli.tune_batch import add_arguments
from bgeserve.errors import BgeServeError, SettingsError
from bgeserve.models.runtime import choose_device, choose_dtype
from bgeserve.tuning import OnRun, Shape, Tuning, compare_shapes, threads_each, tune
from bgeserve.workload import OutOfMemory, Workload, load_workload, sample_texts
from graphs import placement
from graphs.check import parse, read
from graphs.config_edit import with_number
from graphs.config_models import Model, models_of
from graphs.placement import Demand

KEY = "max_batch_tokens"
STEADY = 1.25
"""Times as fast, up to which rounds differ on a machine that nothing else uses."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bge-serve tune-batch", description="Measure how many tokens a batch should have.")
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        models = _chosen(args.config, args.model)
        texts = sample_texts(args.texts)
        for model in models:
            _tune(model, texts, args)
    except BgeServeError as error:
        for line in error.message.splitlines():
            print(f"{args.config}: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _chosen(config: Path, name: str | None) -> list[Model]:
    """Raises SettingsError: what `check` would find wrong wherever it is to run; no such model; none at all."""
    # A user's own graph is found there; last, so that nothing is shadowed.
    sys.path.append(str(Path.cwd()))
    schema, demands = parse(read(config))
    found = models_of(schema)
    chosen = [model for model in found if name in (None, model.name)]
    if not chosen:
        raise SettingsError(f"it has no model {name!r}; its models are {[model.name for model in found]}" if name else "it has no models")
    _refuse_another_machine(chosen, demands)
    return chosen


def _refuse_another_machine(models: Sequence[Model], demands: Sequence[Demand]) -> None:
    """Raises SettingsError when one replica of a model would not fit here: what is measured would be true of no machine."""
    deployments = {f"{model.role}-{model.name}" for model in models}
    one_of_each = [replace(demand, replicas=1) for demand in demands if demand.deployment in deployments]
    here = placement.this_machine(with_gpus=any("GPU" in demand.each for demand in one_of_each))
    if problems := [problem for demand in one_of_each for problem in placement.problems([demand], [here], "this machine")]:
        raise SettingsError("\n".join(problems))


def _tune(model: Model, texts: Sequence[str], args: argparse.Namespace) -> None:
    workload = load_workload(model.settings, texts)
    print(_heading(model, workload), file=sys.stderr)
    shapes: list[Shape] = []
    with _progress(model.name) as on_run:
        try:
            tuning = tune(workload, rounds=args.rounds, run_s=args.run_s, on_run=on_run)
        except OutOfMemory:
            raise SettingsError(f"{model.name} has no memory left for a batch of even the fewest tokens") from None
        with suppress(OutOfMemory):  # that the other shape does not fit is no reason to withhold what was found
            shapes = compare_shapes(workload, tuning.chosen, rounds=args.rounds, run_s=args.run_s, on_run=on_run)
    _show(model, tuning, shapes)
    if args.write:
        _write(args.config, model, tuning.chosen)
        print(f"{model.name}: {KEY}: {tuning.chosen} is written to {args.config}", file=sys.stderr)
    else:
        print(f"{model.name}: put this under {'.'.join(map(str, model.path[3:]))} (--write does it):", file=sys.stderr)
        print(f"{KEY}: {tuning.chosen}")


def _heading(model: Model, workload: Workload) -> str:
    settings = model.settings
    device = choose_device(settings)
    dtype = str(choose_dtype(settings.dtype, device)).removeprefix("torch.")
    costs = [item.cost for item in workload.items]
    workers = _workers(settings.resolved_workers, threads_each(settings))
    lengths = f"{len(costs):,} inputs of {sum(costs) / len(costs):.0f} tokens on average, {max(costs):,} at most"
    return f"{model.name}: {settings.model}, {dtype} on {device}, {workers}; {lengths}"


def _show(model: Model, tuning: Tuning, shapes: Sequence[Shape]) -> None:
    print_table([KEY, "tok/s", "of the best", "ms per batch", ""], list(_rows(model, tuning)))
    if tuning.out_of_memory_at is not None:
        print(f"{model.name}: {tuning.out_of_memory_at:,} tokens do not fit in memory", file=sys.stderr)
    if shapes:
        fastest = max(shapes, key=lambda shape: shape.share_of_best)
        print(f"{model.name}: {'; '.join(map(_said, shapes))}. `workers: {fastest.workers}` is faster", file=sys.stderr)
    if tuning.speed_ratio > STEADY:
        said = "shares are from within rounds, but measure again when nothing else runs"
        print(f"{model.name}: this machine was {tuning.speed_ratio:.1f} times as fast in one round as in another: {said}", file=sys.stderr)


def _rows(model: Model, tuning: Tuning) -> Iterator[tuple[str, ...]]:
    present = model.settings.resolved_max_batch_tokens
    for one in tuning.measured:
        marks = [mark for mark, budget in (("chosen", tuning.chosen), ("now", present)) if budget == one.max_batch_tokens]
        numbers = f"{one.tokens_per_s:,.0f}", f"{one.share_of_best:.1%}", f"{1000 * one.batch_s:,.1f}"
        yield str(one.max_batch_tokens), *numbers, ", ".join(marks)


def _said(shape: Shape) -> str:
    layout = _workers(shape.workers, shape.threads_each)
    return f"{layout}, {shape.max_batch_tokens:,} tokens a batch: {shape.tokens_per_s:,.0f} tok/s, {shape.share_of_best:.0%}"


def _workers(count: int, threads: int) -> str:
    return f"{count} worker{'s' * (count > 1)} of {threads} thread{'s' * (threads > 1)}"


def _write(config: Path, model: Model, chosen: int) -> None:
    # As bytes: reading as text would make every line end like this system's.
    edited = with_number(config.read_bytes().decode(), model.path, KEY, chosen)
    parse(yaml.safe_load(edited))
    config.write_bytes(edited.encode())


@contextmanager
def _progress(name: str) -> Generator[OnRun]:
    """For a person at a terminal; a log would only get its escapes."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    # Seldom redrawn in between: that takes time from what is measured.
    with Progress(*columns, console=console, transient=True, refresh_per_second=2, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)

        def on_run(budget: int, done: int, total: int | None) -> None:
            progress.update(task, description=f"{name}: {budget:,} tokens a batch", completed=done, total=total, refresh=True)

        yield on_run


if __name__ == "__main__":
    sys.exit(main())
