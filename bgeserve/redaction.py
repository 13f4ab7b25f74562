"""Logs without texts: a failure is logged with its type and its stack, not with its message, which may quote what it failed on (pydantic's
does, and tokenizers' may). What bge-serve or the operating system says itself is kept: by rule it quotes no text.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator

from bgeserve.errors import BgeServeError

LOG_TEXTS_VARIABLE = "BGE_SERVE_LOG_TEXTS"
"""`1` where messages may be logged too, to find a fault."""
WITHHELD = f"(message withheld: {LOG_TEXTS_VARIABLE}=1 logs it)"


class _WithoutTexts(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and os.environ.get(LOG_TEXTS_VARIABLE) != "1":
            record.exc_text = "\n".join(_lines(error))  # which formatters write as it is, where it is there already
        return True


WITHOUT_TEXTS = _WithoutTexts()
"""For a logger or a handler."""


def said(error: BaseException) -> str:
    """In one line, for a log."""
    is_safe = isinstance(error, (BgeServeError, OSError)) or os.environ.get(LOG_TEXTS_VARIABLE) == "1"
    return f"{type(error).__module__}.{type(error).__qualname__}: {error if is_safe else WITHHELD}"


def _lines(error: BaseException) -> Iterator[str]:
    """As Python prints it, causes first."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _lines(cause)
        yield "\nand then:\n"
    yield "Traceback (most recent call last):"
    yield "".join(traceback.format_tb(error.__traceback__)).rstrip()
    yield said(error)
