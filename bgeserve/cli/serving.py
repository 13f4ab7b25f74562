"""Hands a command over to the part of bge-serve that runs Ray: this one, the base install, never imports it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, NoReturn

from bgeserve.errors import SettingsError

LIBRARIES = {"serve": ("ray",), "data": ("ray", "pyarrow", "pandas")}
"""By which an extra is known to be installed."""


def hand_over(module: str, arguments: Sequence[str], extra: Literal["serve", "data"] = "serve") -> NoReturn:
    """Become `python -m module`, so that signals reach it and its exit code is ours. Raises SettingsError without `bge-serve[extra]`."""
    if any(find_spec(library) is None for library in LIBRARIES[extra]):
        needed = "Ray" if extra == "serve" else "Ray Data"
        raise SettingsError(f"this command needs {needed}: pip install 'bge-serve[{extra}]'")
    # -P: a folder in the working directory that is called like one of our packages must not take its place.
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])
