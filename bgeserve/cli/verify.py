"""`bge-serve verify MODEL`: loads the model here and compares its numbers. Exit code 1 when one differs by more than its tolerance.

Needs the `serve` extra; asks no service.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgeserve.cli.arguments import Subparsers
from bgeserve.cli.output import print_json, print_table
from bgeserve.errors import SettingsError

if TYPE_CHECKING:
    from bgeserve.models.verification import Comparison
    from bgeserve.settings import EmbedderSettings, RerankerSettings

ROUND_TRIP = (
    "FlagEmbedding decodes a cross-encoder's ids and tokenises the text again: pairs with characters that the vocabulary lacks, "
    "or past the limit, may differ"
)


def add_parser(subparsers: Subparsers[Any]) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="compare a model's numbers with FlagEmbedding's, with published or with recorded ones",
        description="Load a model on this machine and compare what it computes.",
    )
    parser.add_argument("model", help="a hub name, a folder, or package:NAME")
    parser.add_argument(
        "--against",
        help="published (what BAAI states; the default where there is any), flagembedding (its own class, in this process), or a file",
    )
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the numbers instead, to be compared with later")
    parser.add_argument("--like", help="the published model whose catalogue row holds for this checkpoint")
    parser.add_argument("--dtype", default="float32", choices=["auto", "float32", "bfloat16", "float16"], help="default: float32")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="default: cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from bgeserve.models.verification import settings_for

    gpus = 1 if args.device == "cuda" else 0
    settings = settings_for(args.model, like=args.like, dtype=args.dtype, device=args.device, gpus=gpus)
    if args.record is not None:
        return _record(settings, args.record)
    comparisons, against, note = _compare(settings, args.against)
    if args.json:
        print_json({"model": args.model, "against": against, "note": note, "outputs": [asdict(one) for one in comparisons]})
    else:
        print(f"{args.model}, {args.dtype} on {args.device}, against {against}", file=sys.stderr)
        print_table(["output", "largest difference", "tolerance", ""], [_row(one) for one in comparisons])
        if note:
            print(note, file=sys.stderr)
    return 0 if all(one.holds for one in comparisons) else 1


def _row(one: Comparison) -> tuple[str, ...]:
    return one.output, f"{one.largest_difference:.2g}", f"{one.tolerance:g}", "ok" if one.holds else "DIFFERS"


def _compare(settings: EmbedderSettings | RerankerSettings, against: str | None) -> tuple[list[Comparison], str, str]:
    """The comparisons, what was compared with, and what should be known about it."""
    from bgeserve.models.published import published
    from bgeserve.models.verification import compare, compare_published, numbers_of
    from bgeserve.settings import RerankerSettings

    known = published(settings.like or settings.model)
    if against == "published" or (against is None and known):
        if not known:
            raise SettingsError(f"there are no published numbers of {settings.model}: use --against flagembedding, or a recorded file")
        return compare_published(settings, known), "the numbers that BAAI publishes", " ".join(one.note for one in known)
    ours, max_tokens = numbers_of(settings)
    if against is None or against == "flagembedding":
        theirs, _ = numbers_of(settings.model_copy(update={"engine": "flagembedding", "max_tokens": max_tokens}))
        note = ROUND_TRIP if isinstance(settings, RerankerSettings) else ""
        return compare(ours, theirs, settings), "FlagEmbedding's own class", note
    recorded = _read(Path(against))
    return compare(ours, recorded["numbers"], settings), f"{against} ({recorded['made_with']})", ""


def _record(settings: EmbedderSettings | RerankerSettings, file: Path) -> int:
    import torch
    import transformers

    from bgeserve.models.verification import numbers_of

    made_with = f"torch {torch.__version__}, transformers {transformers.__version__}, {settings.dtype} on {settings.resolved_device}"
    numbers, max_tokens = numbers_of(settings)
    file.write_text(json.dumps({"model": settings.model, "made_with": made_with, "max_tokens": max_tokens, "numbers": numbers}))
    print(f"recorded {settings.model} in {file}", file=sys.stderr)
    return 0


def _read(file: Path) -> Mapping[str, Any]:
    try:
        recorded = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"--against {file}: not published, not flagembedding, and not a file that was recorded: {error}") from None
    if not isinstance(recorded, dict) or not {"numbers", "made_with"} <= recorded.keys():
        raise SettingsError(f"--against {file}: it was not written by bge-serve verify --record")
    return recorded
