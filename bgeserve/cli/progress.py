"""Progress on stderr: how many of how many, how fast, how much longer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text


class Bars:
    """One line per thing that is under way; not visible: none, for programs."""

    def __init__(self, *, visible: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not visible,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def add(self, what: str, total: int, unit: str) -> Callable[[int], None]:
        """Begin a line; call the answer with how many are done."""
        task = self._progress.add_task(what, total=total, unit=unit)
        return partial(self._show, task)

    def _show(self, task: TaskID, done: int) -> None:
        self._progress.update(task, completed=done)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {task.fields['unit']}/s" if task.speed else "")
