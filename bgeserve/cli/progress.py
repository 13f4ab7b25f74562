"""Progress on stderr: how many of how many, how fast, how much longer."""

from __future__ import annotations

from functools import partial
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text


class Show(Protocol):
    def __call__(self, done: int, total: int | None = None) -> None:
        """total: where it has become known only now, or better known than before."""


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

    def add(self, what: str, total: int | None, unit: str) -> Show:
        """Begin a line; call the answer with how many are done. total: None while it is not known."""
        task = self._progress.add_task(what, total=total, unit=unit)
        return partial(self._show, task)

    def _show(self, task: TaskID, done: int, total: int | None = None) -> None:
        self._progress.update(task, completed=done, total=total)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {task.fields['unit']}/s" if task.speed else "")
