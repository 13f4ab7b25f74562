"""One deadline for a whole request, of which every stage gets what is left."""

from __future__ import annotations

from time import monotonic

from bgeserve.errors import DeadlineExceeded


class Deadline:
    """Counts down from `timeout_s` (None: no deadline). Clocks of two machines cannot be compared: it travels as what is left of it."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._at = None if timeout_s is None else monotonic() + timeout_s

    def remaining_s(self) -> float | None:
        """Seconds left, always above 0. Raises DeadlineExceeded."""
        left = self._left_s()
        if left is not None and left <= 0:
            raise DeadlineExceeded(f"the deadline of {self._timeout_s} s has passed")
        return left

    def _left_s(self) -> float | None:
        return None if self._at is None else self._at - monotonic()

    def __reduce__(self) -> tuple[type[Deadline], tuple[float | None]]:
        # One that has passed travels too: what it goes with may be about others.
        return Deadline, (self._left_s(),)


NO_DEADLINE = Deadline(None)
