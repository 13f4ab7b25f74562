"""One deadline for a whole request, of which every stage gets what is left."""

from __future__ import annotations

from time import monotonic

from bgeserve.errors import DeadlineExceeded


class Deadline:
    """Counts down from `timeout_s` (None: no deadline). Holds a local clock's time, so it never crosses a process; `remaining_s` does."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._at = None if timeout_s is None else monotonic() + timeout_s

    def remaining_s(self) -> float | None:
        """Seconds left, always above 0. Raises DeadlineExceeded."""
        if self._at is None:
            return None
        left = self._at - monotonic()
        if left <= 0:
            raise DeadlineExceeded(f"the deadline of {self._timeout_s} s has passed")
        return left


NO_DEADLINE = Deadline(None)
