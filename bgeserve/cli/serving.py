"""Hands a command over to the part of bge-serve that runs Ray: this one, the base install, never imports it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

from bgeserve.errors import SettingsError


def hand_over(module: str, arguments: Sequence[str]) -> NoReturn:
    """Become `python -m module`, so that signals reach it and its exit code is ours. Raises SettingsError without `bge-serve[serve]`."""
    if find_spec("ray") is None:
        raise SettingsError("this command needs Ray: pip install 'bge-serve[serve]'")
    # -P: a folder in the working directory that is called like one of our packages must not take its place.
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])
