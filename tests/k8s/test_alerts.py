"""The alert rules ask only for what is exported, say what to do, and are what the Prometheus operator takes (its CRD is not at hand)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.k8s.exported import Metric
from tests.k8s.kustomize import Tree
from tests.k8s.prometheus import Query
from tests.k8s.variants import K8S, documents

RUNBOOK = K8S.parent / "docs" / "runbook.md"
MAX_LINES = 80


@pytest.fixture(scope="module")
def groups() -> list[Tree]:
    (rules,) = [document for document in documents("everything") if document["kind"] == "PrometheusRule"]
    return rules["spec"]["groups"]


@pytest.fixture(scope="module")
def alerts(groups: list[Tree]) -> list[Tree]:
    return [rule for group in groups for rule in group["rules"]]


def anchors(markdown: str) -> list[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings]


def test_every_metric_and_label_is_exported(alerts: list[Tree], exported: list[Metric]) -> None:
    assert [problem for alert in alerts for problem in Query(alert["alert"], alert["expr"]).problems(exported)] == []


def test_each_summary_names_only_labels_that_its_expression_keeps(alerts: list[Tree]) -> None:
    for alert in alerts:
        named = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
        assert named <= Query(alert["alert"], alert["expr"]).grouped_by(), alert["alert"]


def test_each_alert_has_its_place_in_the_runbook_and_each_place_its_alert(alerts: list[Tree]) -> None:
    text = RUNBOOK.read_text()
    linked = [alert["annotations"]["runbook_url"] for alert in alerts]
    of_alerts = text.partition("## Alerts")[2].partition("\n## ")[0]
    assert linked == [f"docs/runbook.md#{anchor}" for anchor in anchors(of_alerts)]
    inner = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert inner <= set(anchors(text))
    assert len(text.splitlines()) <= MAX_LINES, "one page"


def test_an_alert_has_the_fields_of_the_operators_rules(alerts: list[Tree]) -> None:
    for alert in alerts:
        assert alert.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}, alert
        assert re.fullmatch(r"\d+m", alert.get("for", "1m")), alert["alert"]
        assert alert["labels"]["severity"] in ("critical", "warning"), alert["alert"]
        assert alert["annotations"].keys() == {"summary", "runbook_url"}, alert["alert"]
    assert len({alert["alert"] for alert in alerts}) == len(alerts)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Prometheus")
def test_prometheus_takes_them(groups: list[Tree], tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yaml"], check=True)
