"""`bge-serve check CONFIG`: everything about a Serve config that can be known before it is deployed.

Strict where Ray is lenient: a key that nothing reads, a deployment that does not exist, more GPUs than there are, are refused by name.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel
from ray.runtime_env import RuntimeEnv
from ray.serve import Application
from ray.serve._private.build_app import build_app
from ray.serve.deployment import Deployment
from ray.serve.schema import DeploymentSchema, ServeApplicationSchema, ServeDeploySchema

import bgeserve
from bgeserve.api.keyring import keyring_of
from bgeserve.cli.check import add_arguments
from bgeserve.errors import BgeServeError, SettingsError
from graphs import placement, strict
from graphs.placement import Demand, Resources


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bge-serve check", description="Say what is wrong with a Serve config, without deploying it.")
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        config = check(args.config, on_cluster=args.cluster)
    except SettingsError as error:
        for line in error.message.splitlines():
            print(f"{args.config}: {line}", file=sys.stderr)
        return 1
    print(f"{args.config}: {', '.join(app.name for app in config.applications)}: ok")
    return 0


def check(path: Path, *, on_cluster: bool = False) -> ServeDeploySchema:
    """The config, if nothing is wrong with it. Raises SettingsError with a line for each problem."""
    _refuse_shadows()
    # Ray's workers find a user's own modules there; last, so that nothing is shadowed.
    sys.path.append(str(Path.cwd()))
    # The ingress would find what is wrong with the API keys only when it starts.
    keyring_of(os.environ)
    config, demands = parse(read(path))
    if found := placement.problems(demands, *_nodes(demands, on_cluster=on_cluster)):
        raise SettingsError("\n".join(found))
    return config


def parse(sent: object) -> tuple[ServeDeploySchema, list[Demand]]:
    """The config and what it asks for, wherever it is to run. Raises SettingsError with a line for each problem."""
    if found := strict.problems(sent, ServeDeploySchema):
        raise SettingsError("\n".join(found))
    config = ServeDeploySchema.model_validate(sent)
    return config, [demand for i, application in enumerate(config.applications) for demand in _demands(application, f"applications[{i}]")]


def read(path: Path) -> object:
    """Raises SettingsError."""
    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise SettingsError(f"cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"is not YAML: {' '.join(str(error).split())}") from None


def _nodes(demands: Sequence[Demand], *, on_cluster: bool) -> tuple[list[Resources], str]:
    if on_cluster:
        return placement.cluster(), "the cluster"
    return [placement.this_machine(with_gpus=any("GPU" in demand.each for demand in demands))], "this machine"


def _refuse_shadows() -> None:
    """Workers look in the working directory first: a package there that is called like one of ours would run in its place."""
    ours = Path(bgeserve.__file__).parents[1]
    for name in ("bgeserve", "deployments", "graphs"):
        spec = PathFinder.find_spec(name, [str(Path.cwd())])
        if spec is not None and spec.origin is not None and Path(spec.origin).resolve().parents[1] != ours.resolve():
            raise SettingsError(f"{spec.origin} would be imported in place of bge-serve's own {name!r}: start in another directory")


def _demands(application: ServeApplicationSchema, path: str) -> list[Demand]:
    known = sorted(RuntimeEnv.known_fields)
    if foreign := [strict.unknown_key(f"{path}.runtime_env", key, known) for key in application.runtime_env if key not in known]:
        raise SettingsError("\n".join(foreign))
    bound = build_app(_build(application, path), name=application.name, default_runtime_env={})
    deployments = {deployment.name: deployment for deployment in bound.deployments}
    overrides = {override.name: override for override in application.deployments}
    if unknown := [strict.unknown_key(f"{path}.deployments", name, sorted(deployments)) for name in overrides if name not in deployments]:
        raise SettingsError("\n".join(unknown))
    return [_demand(deployment, overrides.get(name)) for name, deployment in deployments.items()]


def _build(application: ServeApplicationSchema, path: str) -> Application:
    builder = _import(application.import_path, f"{path}.import_path")
    if isinstance(builder, Application):
        return builder
    if not inspect.isfunction(builder):
        raise SettingsError(f"{path}.import_path: {application.import_path} is neither an application nor a function that builds one")
    settings: object = application.args
    for parameter in inspect.signature(builder).parameters.values():
        if inspect.isclass(parameter.annotation) and issubclass(parameter.annotation, BaseModel):
            if found := strict.problems(application.args, parameter.annotation, f"{path}.args"):
                raise SettingsError("\n".join(found))
            settings = parameter.annotation.model_validate(application.args)
    try:
        return cast("Application", builder(settings))
    except BgeServeError as error:
        raise SettingsError(f"{path}.args: {error.message}") from error


def _import(import_path: str, path: str) -> object:
    module_name, _, attribute = import_path.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise SettingsError(f"{path}: {import_path} cannot be imported: {error}") from error
    except AttributeError:
        raise SettingsError(f"{path}: the module {module_name} has no {attribute!r}") from None


def _demand(deployment: Deployment, override: DeploymentSchema | None) -> Demand:
    options: dict[str, Any] = {**(deployment.ray_actor_options or {})}
    replicas = _least_replicas(deployment)
    if override is not None:
        set_here = override.model_dump(exclude_unset=True)
        options |= set_here.get("ray_actor_options") or {}
        replicas = _least_replicas(deployment.options(**_scaling(set_here)))
    each = {"CPU": options.get("num_cpus", 1), "GPU": options.get("num_gpus", 0), **(options.get("resources") or {})}
    return Demand(deployment.name, {name: amount for name, amount in each.items() if amount}, replicas)


def _scaling(set_here: Mapping[str, Any]) -> dict[str, Any]:
    return {key: set_here[key] for key in ("num_replicas", "autoscaling_config") if set_here.get(key) is not None}


def _least_replicas(deployment: Deployment) -> int:
    autoscaling = deployment._deployment_config.autoscaling_config  # pyright: ignore[reportPrivateUsage]
    return (deployment.num_replicas or 0) if autoscaling is None else autoscaling.min_replicas


if __name__ == "__main__":
    sys.exit(main())
