"""Prints how far our numbers are from FlagEmbedding's: model x output x largest difference x where theirs were computed.

    python -m tests.models.parity_table

What is compared is what `test_parity.py` compares, on the same tiny checkpoints, in float32. Ends with 1 when anything is too far.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import logging as transformers_logging

from tests.models.folders import Folders
from tests.models.parity import CASES


def main() -> int:
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    console = Console()
    table = Table("model", "output", "values", "largest difference", "tolerance", "computed by", title="Parity, float32, tiny checkpoints")
    failed = 0
    # FlagEmbedding's progress bars go to stderr.
    with tempfile.TemporaryDirectory() as root, console.status("comparing"), redirect_stderr(StringIO()):
        folders = Folders(Path(root))
        for case in CASES:
            folder = folders[case.model]
            differences, values = case.differences(folder), case.values(folder)
            for output, far in differences.items():
                near = far <= case.tolerance
                failed += not near
                first = output == next(iter(differences))
                table.add_row(
                    str(case) if first else "", output, f"{values[output].size:,}", f"{far:.1e}" if near else f"[red]{far:.1e}[/red]",
                    f"{case.tolerance:.0e}", case.where if first else "",
                )  # fmt: skip
            table.add_section()
    Console(width=max(console.width, 200)).print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
