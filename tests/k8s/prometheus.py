"""PromQL as far as our expressions use it: which metrics they name, and by which labels. What is wrong with one is a line each."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.k8s.exported import Metric


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and where it stands."""

    where: str
    text: str

    def selectors(self) -> list[tuple[str, set[str]]]:
        """Each metric that it names, with the labels that it is selected by."""
        found = re.findall(r"([a-zA-Z_:][\w:]*)\{([^{}]*)\}", self.text)
        return [(metric, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))) for metric, matchers in found]

    def grouped_by(self) -> set[str]:
        lists = re.findall(r"\b(?:by|on|without|group_left) \(([^()]*)\)", self.text)
        return {label.strip() for labels in lists for label in labels.split(",") if label.strip()}

    def problems(self, exported: list[Metric]) -> list[str]:
        found: list[str] = []
        known: set[str] = set()
        for name, labels in self.selectors():
            metrics = [metric for metric in exported if re.fullmatch(metric.name, name)]
            if not metrics:
                found.append(f"{self.where}: nothing exports {name}")
            offered = {label for metric in metrics for label in metric.labels}
            known |= offered
            found += [f"{self.where}: {name} has no label {label}" for label in sorted(labels - offered) if metrics]
        if known and (unknown := self.grouped_by() - known):
            found.append(f"{self.where}: groups by {sorted(unknown)}")
        named = set(re.findall(r"\b(?:ray|bge)_\w+", self.text))
        return found + [f"{self.where}: {name} has no selector" for name in sorted(named - {name for name, _ in self.selectors()})]
