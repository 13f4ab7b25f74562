"""What was sent, as an error may quote it: enough to find the mistake, never a text. Errors end up in the logs of whoever asked."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from reprlib import Repr
from typing import Any

MAX_QUOTED_CHARACTERS = 40
"""Of the value of a field that takes no texts, such as a misspelt mode: names are shorter, texts mostly longer."""


class _Quote(Repr):
    def __init__(self) -> None:
        super().__init__()
        # A body may hold megabytes, or be nested deeper than repr() goes.
        self.maxlevel, self.maxlist, self.maxdict, self.maxother = 3, 4, 4, 80

    def repr_str(self, x: str, level: int) -> str:
        if level < self.maxlevel:
            return "'...'"
        return repr(x) if len(x) <= MAX_QUOTED_CHARACTERS else f"a string of length {len(x)}"

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        if level <= 0:
            return "{...}"
        shown = [f"{_name(key)}: {self.repr1(x[key], level - 1)}" for key in islice(x, self.maxdict)]
        return f"{{{', '.join([*shown, *(['...'] if len(x) > self.maxdict else [])])}}}"


_QUOTE = _Quote()


def brief(sent: object) -> str:
    """Numbers as they are, short strings quoted, of long ones the length; inside lists and objects no strings but the fields' names."""
    return _QUOTE.repr(sent)


def brief_where_texts_stand(sent: object) -> str:
    """As `brief`, but a string is never quoted, however short."""
    return f"a string of length {len(sent)}" if isinstance(sent, str) else brief(sent)


def _name(key: object) -> str:
    quoted = repr(key)
    return quoted if len(quoted) <= MAX_QUOTED_CHARACTERS else "'...'"
