"""What a scenario found, as tables on the terminal, as Markdown, and as plots. Knows no scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Bars:
    """A group of bars for each label, a bar for each series; what was not measured is left out."""

    name: str
    title: str
    value: str
    labels: Sequence[str]
    series: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Lines:
    name: str
    title: str
    x: str
    y: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    y_scale: Literal["linear", "log"] = "linear"
    """Linear ones begin at zero, so that no growth looks larger than it is."""


@dataclass(frozen=True, slots=True)
class Findings:
    sections: Sequence[Section]
    plots: Sequence[Bars | Lines] = field(default_factory=tuple)


def show(console: Console, section: Section) -> None:
    table = Table(*section.columns)
    for row in section.rows:
        table.add_row(*row)
    console.print("", section.title, table, *section.notes, sep="\n", markup=False)


def markdown(section: Section) -> str:
    lines = [section.columns, ["---"] * len(section.columns), *section.rows]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    return "\n\n".join([f"## {section.title}", table, *section.notes])


def save(folder: Path, name: str, heading: str, found: Sequence[Findings]) -> list[Path]:
    """One Markdown file, and each plot as PNG and SVG beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / f"{name}.md"
    plots = [plot for findings in found for plot in findings.plots]
    images = [draw(plot, folder / f"{name}-{plot.name}") for plot in plots]
    shown = [f"![{plot.title}]({image[0].name})" for plot, image in zip(plots, images, strict=True)]
    sections = [markdown(section) for findings in found for section in findings.sections]
    report.write_text("\n\n".join([f"# {heading}", *sections, *shown]) + "\n")
    return [report, *(path for image in images for path in image)]


def draw(plot: Bars | Lines, path: Path) -> list[Path]:
    # Only whoever saves pays for the import.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    if isinstance(plot, Bars):
        width = 0.8 / max(1, len(plot.series))
        for n, (name, values) in enumerate(plot.series.items()):
            places = [i + n * width for i, label in enumerate(plot.labels) if label in values]
            axes.bar(places, [values[label] for label in plot.labels if label in values], width, label=name)
        axes.set_xticks([i + 0.4 - width / 2 for i in range(len(plot.labels))], plot.labels)
        axes.set_ylabel(plot.value)
    else:
        for name, points in plot.series.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set(xlabel=plot.x, ylabel=plot.y, yscale=plot.y_scale)
        if plot.y_scale == "linear":
            axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
    axes.set_title(plot.title)
    axes.legend()
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    for saved in paths:
        figure.savefig(saved, dpi=120)
    pyplot.close(figure)
    return paths
