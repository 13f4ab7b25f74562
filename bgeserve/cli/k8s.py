"""`bge-serve k8s render CONFIG`: hands over to `graphs.k8s`, which needs what `bge-serve[serve]` installs."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgeserve.cli.arguments import Subparsers
from bgeserve.cli.serving import hand_over

IMAGE = "bge-serve:0.1.0"
HARDWARE = ("cpu", "gpu", "gpu-fractional")


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("k8s", help="write Kubernetes manifests for a Serve config")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    render = verbs.add_parser(
        "render",
        help="the RayService of a Serve config",
        description="Print the RayService that serves CONFIG, or write into a copy of k8s/ everything there that follows from CONFIG: "
        "the RayService, what each hardware overlay makes of it, and the job that fetches the weights.",
    )
    add_arguments(render)
    render.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="such as configs/m3-cluster.yaml")
    parser.add_argument("--image", default=IMAGE, help=f"of every pod, where the cluster can pull it (default: {IMAGE})")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--overlay", choices=HARDWARE, help="print it as this hardware overlay leaves it")
    where.add_argument("--into", type=Path, metavar="FOLDER", help="write the files into this copy of k8s/, in place of what is there")


def run(args: argparse.Namespace) -> int:
    options = {"--overlay": args.overlay, "--into": args.into}
    stated = [part for option, value in options.items() if value is not None for part in (option, str(value))]
    return hand_over("graphs.k8s", [str(args.config), "--image", args.image, *stated])
