"""Prints the contract as a table, rule by store, and ends as pytest does.

python -m tests.stores.contract_table [PYTEST ARGUMENT ...]
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.stores.conftest import STORES

FILES = ("test_contract.py", "test_multi_vector.py", "test_filters_in_stores.py")


class Outcomes:
    """A pytest plugin: what came of each rule for each store; a rule with several cases holds when all of them do."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        rule, _, case = report.nodeid.partition("::")[2].partition("[")
        for store in STORES:
            if store in case.rstrip("]").split("-"):
                self.of[rule][store].add(report.outcome)


def main(arguments: Sequence[str]) -> int:
    outcomes = Outcomes()
    folder = Path(__file__).parent
    with contextlib.redirect_stdout(io.StringIO()) as output:
        status = pytest.main([*(str(folder / name) for name in FILES), "-q", *arguments], plugins=[outcomes])
    lines = [f"| rule | {' | '.join(STORES)} |", f"|---|{'---|' * len(STORES)}"]
    for rule, by_store in outcomes.of.items():
        name = rule.rpartition("::")[2].removeprefix("test_").replace("_", " ")
        lines.append(f"| {name} | {' | '.join(_cell(by_store[store]) for store in STORES)} |")
    sys.stdout.write("\n".join([*lines, "", output.getvalue().splitlines()[-1], ""]))
    return status


def _cell(outcomes: set[str]) -> str:
    if "failed" in outcomes:
        return "**fails**"
    return "holds" if "passed" in outcomes else "not run" if outcomes else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
