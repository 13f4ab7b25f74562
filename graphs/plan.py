"""`bge-serve plan CONFIG --trace FILE`: what the models of a Serve config would do under an operator's rates, and what would be full first.

Knows configs, and how a prediction is shown. How it comes about is in `bgeserve.simulation`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bgeserve.cli.output import print_json, print_table
from bgeserve.cli.plan import add_arguments
from bgeserve.errors import BgeServeError, SettingsError
from bgeserve.settings import IngressSettings
from bgeserve.simulation.limits import Limit, limits
from bgeserve.simulation.prediction import Prediction, predict
from bgeserve.simulation.rates import Rate, peak, read_rates
from bgeserve.simulation.replica import Speed
from graphs.check import parse, read
from graphs.config_models import Model, models_of

REQUEST_S = 0.007
"""What the service adds to one text at the most, at p50: `benchmarks.serve_one` (README, "Measured")."""


@dataclass(frozen=True)
class Planned:
    model: Model
    prediction: Prediction

    @property
    def most_gpus(self) -> float:
        return self.model.settings.gpus * self.prediction.most_replicas

    @property
    def gpu_hours(self) -> float:
        return self.model.settings.gpus * self.prediction.replica_s / 3600


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bge-serve plan", description="What a load would take.")
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        rates = read_rates(args.trace)
        planned = plan(args.config, rates, dict(args.tokens_per_s), args.start_s)
    except BgeServeError as error:
        for line in error.message.splitlines():
            print(f"{args.config}: {line}", file=sys.stderr)
        return 1
    every_rate = [rate for of_model in rates.values() for rate in of_model]
    requests_per_s = peak(every_rate, lambda rate: rate.requests_per_s)
    found = limits(requests_per_s, args.searches_per_s, sum(one.prediction.most_replicas for one in planned))
    if args.json:
        print_json(_as_json(planned, found))
    else:
        _show(planned, found)
    return 0


def plan(config: Path, rates: Mapping[str, Sequence[Rate]], tokens_per_s: Mapping[str, float], start_s: float | None) -> list[Planned]:
    """Raises SettingsError: what is wrong with the config; a model of the trace that it does not have, or whose speed is not stated."""
    # A user's own graph is found there; last, so that nothing is shadowed.
    sys.path.append(str(Path.cwd()))
    schema, _ = parse(read(config))
    models = {model.name: model for model in models_of(schema)}
    if unknown := sorted(rates.keys() - models.keys()):
        raise SettingsError(f"the trace has the model {unknown[0]!r}; the config's models are {sorted(models)}")
    if silent := sorted(rates.keys() - tokens_per_s.keys()):
        raise SettingsError(f"--tokens-per-s does not say how fast {silent[0]} is; `bge-serve tune-batch` measures it")
    ingress = next((application.args["ingress"] for application in schema.applications if "ingress" in application.args), {})
    timeout_s = IngressSettings.model_validate(ingress).timeout_s
    return [
        Planned(models[name], _predict(models[name], of_model, tokens_per_s[name], timeout_s, start_s)) for name, of_model in rates.items()
    ]


def _predict(model: Model, rates: Sequence[Rate], tokens_per_s: float, timeout_s: float, start_s: float | None) -> Prediction:
    settings, replicas = model.settings, model.settings.replicas
    speed = Speed(tokens_per_s, settings.resolved_max_batch_tokens, settings.max_queue_s, settings.bulk_share)
    start_s = replicas.cold_start_s if start_s is None else start_s
    return predict(speed, replicas.rule, rates, timeout_s=timeout_s, start_s=start_s, request_s=REQUEST_S)


def _as_json(planned: Sequence[Planned], found: Sequence[Limit]) -> dict[str, Any]:
    models = [
        {"model": one.model.name, "most_gpus": one.most_gpus, "gpu_hours": one.gpu_hours, **asdict(one.prediction)} for one in planned
    ]
    return {"models": models, "limits": [{**asdict(limit), "needed": limit.needed, "is_reached": limit.is_reached} for limit in found]}


def _show(planned: Sequence[Planned], found: Sequence[Limit]) -> None:
    columns = [
        "model",
        "requests",
        "most replicas",
        "replica-hours",
        "most GPUs",
        "GPU-hours",
        "p50 s",
        "p99 s",
        "jobs' p99 s",
        "late",
        "refused",
    ]
    print_table(columns, [_row(one) for one in planned])
    print_table(["model", "from s", "tokens/s sent", "replicas", "most", "backlog s"], [row for one in planned for row in _timeline(one)])
    print_table(["what", "at the peak", "one takes", "needed", "", "from"], [_limit_row(limit) for limit in found])
    for one in planned:
        if (part := one.prediction.simulated_part) > 1 or one.prediction.together > 1:
            said = f"1/{part} of the fleet was simulated, {one.prediction.together} requests at a time"
            print(f"{one.model.name}: {said}", file=sys.stderr)


def _row(one: Planned) -> tuple[str, ...]:
    said = one.prediction
    spent = f"{said.replica_s / 3600:,.1f}", f"{one.most_gpus:g}", f"{one.gpu_hours:,.1f}"
    times = ["" if time_s is None else f"{time_s:,.3g}" for time_s in (said.p50_s, said.p99_s, said.jobs_p99_s)]
    return one.model.name, f"{said.requests:,}", f"{said.most_replicas:,}", *spent, *times, f"{said.late:,}", f"{said.refused:,}"


def _timeline(one: Planned) -> Iterator[tuple[str, ...]]:
    for period in one.prediction.periods:
        replicas = f"{period.replicas:,.1f}", f"{period.most_replicas:,}"
        yield one.model.name, f"{period.at_s:,.0f}", f"{period.tokens_per_s:,.0f}", *replicas, f"{period.unanswered_s:.2f}"


def _limit_row(limit: Limit) -> tuple[str, ...]:
    said = "full: there can be only one" if limit.is_reached else ""
    return limit.what, f"{limit.at_peak:,.0f} {limit.unit}", f"{limit.each_takes:,.0f}", f"{limit.needed:,}", said, limit.source


if __name__ == "__main__":
    sys.exit(main())
