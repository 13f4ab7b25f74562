"""The course of a comparison: load, replicas and backlog over time, a column for each trace, the policies in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.autoscale.traces import Trace
from bgeserve.simulation.load import Moment

BINS = 60


@dataclass(frozen=True)
class Course:
    moments: Sequence[Moment]
    simulated: Sequence[Moment] = ()
    """Of the same, where `moments` were lived."""
    load: Sequence[tuple[float, float]] = ()
    """Seconds, replicas' worth."""

    @classmethod
    def of_load(cls, trace: Trace, tokens_per_s: float) -> Course:
        width_s = trace.seconds / BINS
        tokens = [0.0] * BINS
        for arrival in trace.arrivals:
            tokens[int(arrival.at_s / width_s)] += arrival.tokens
        return cls((), load=[((n + 0.5) * width_s, sent / width_s / tokens_per_s) for n, sent in enumerate(tokens)])


def draw(columns: Sequence[tuple[str, Mapping[str, Course]]], path: Path) -> None:
    """The first course of each column is the load's; replicas above, what is unanswered below."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(2, len(columns), figsize=(6.5 * len(columns), 7), layout="constrained", squeeze=False, sharex="col")
    for n, (title, courses) in enumerate(columns):
        replicas, backlog = rows[0][n], rows[1][n]
        for color, (name, course) in zip(("0.6", "C0", "C3"), courses.items(), strict=False):
            if course.load:
                replicas.fill_between(*zip(*course.load, strict=True), color="0.85", label="sent, in replicas' worth")
                continue
            _line(replicas, course.moments, "asked_for", color, "-", name)
            _line(backlog, course.moments, "unanswered_tokens", color, "-", name)
            if course.simulated:
                _line(replicas, course.simulated, "asked_for", color, ":", f"{name}, simulated")
                _line(backlog, course.simulated, "unanswered_tokens", color, ":", f"{name}, simulated")
        replicas.set_title(title.partition(":")[0])
        # Above the lines, not on them.
        replicas.set_ylim(0, 1.4 * replicas.get_ylim()[1])
        replicas.legend(loc="upper left", fontsize=8, ncols=2)
        backlog.set_xlabel("seconds")
    rows[0][0].set_ylabel("replicas")
    rows[1][0].set_ylabel("tokens sent and not answered")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _line(axes: object, moments: Sequence[Moment], of: str, color: str, style: str, label: str) -> None:
    at_s = [moment.at_s for moment in moments]
    axes.step(at_s, [getattr(moment, of) for moment in moments], style, where="post", color=color, label=label, linewidth=1.4)  # type: ignore[attr-defined]
