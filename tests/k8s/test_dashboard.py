"""The Grafana dashboard: it is well-formed, and asks only for metrics that Ray and our own code really export, by labels that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.k8s.exported import Metric
from tests.k8s.prometheus import Query
from tests.k8s.schemas import pods
from tests.k8s.variants import documents

K8S = Path(__file__).parent.parent.parent / "k8s"
DASHBOARD = K8S / "grafana" / "bge-serve.json"
Tree = dict[str, Any]


@pytest.fixture(scope="module")
def dashboard() -> Tree:
    return json.loads(DASHBOARD.read_text())


@pytest.fixture(scope="module")
def panels(dashboard: Tree) -> list[Tree]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def queries(dashboard: Tree, panels: list[Tree]) -> list[Query]:
    of_panels = [Query(f"{panel['title']}, {target['refId']}", target["expr"]) for panel in panels for target in panel["targets"]]
    return [*of_panels, *(Query(f"${name}", asked) for name, asked in _variable_queries(dashboard))]


def _variable_queries(dashboard: Tree) -> Iterator[tuple[str, str]]:
    """`label_values(metric, label)` as a query that groups by the label."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((\w+)(\{.*\})?, (\w+)\)", variable["query"]["query"])
            assert asked, variable["name"]
            assert variable["definition"] == variable["query"]["query"]
            yield variable["name"], f"count by ({asked[3]}) ({asked[1]}{asked[2] or '{}'})"


def test_every_metric_and_label_is_exported(queries: list[Query], exported: list[Metric]) -> None:
    assert [problem for query in queries for problem in query.problems(exported)] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sum(rate(ray_bge_serve_forward_s_bucket{model='m'}[5m]))", None),
        ("sum(rate(ray_bge_serve_forwards_s_bucket{model='m'}[5m]))", "nothing exports ray_bge_serve_forwards_s_bucket"),
        ("sum(rate(ray_bge_serve_forward_s_total{model='m'}[5m]))", "nothing exports ray_bge_serve_forward_s_total"),
        ("sum(ray_bge_serve_queued_tokens_bucket{model='m'})", "nothing exports ray_bge_serve_queued_tokens_bucket"),
        ("sum(ray_bge_serve_queued_tokens{modle='m'})", "ray_bge_serve_queued_tokens has no label modle"),
        ("sum by (le, route) (rate(ray_bge_serve_forward_s_bucket{}[5m]))", "groups by ['route']"),
        ("sum(rate(ray_serve_num_http_requests_total{route='/'}[5m]))", None),
        ("sum(rate(ray_serve_num_http_requests{route='/'}[5m]))", "nothing exports ray_serve_num_http_requests"),
        ("sum(ray_bge_serve_queued_tokens)", "ray_bge_serve_queued_tokens has no selector"),
    ],
)
def test_a_wrong_query_is_found(text: str, said: str | None, exported: list[Metric]) -> None:
    assert Query("here", text).problems(exported) == ([] if said is None else [f"here: {said}"])


def test_whatever_a_model_measures_is_shown(queries: list[Query], measured: list[Metric]) -> None:
    asked = {name for query in queries for name, _ in query.selectors()}
    unseen = [one.name for one in measured if not any(re.fullmatch(one.name, name) for name in asked)]
    assert unseen == []


def test_every_panel_says_what_it_shows_in_which_unit(panels: list[Tree]) -> None:
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
    assert len({panel["title"] for panel in panels}) == len(panels)


def test_ids_are_unique_and_the_uid_stays(dashboard: Tree, panels: list[Tree]) -> None:
    # Grafana updates the dashboard of this uid; another one would stand beside it after each import.
    assert dashboard["uid"] == "bge-serve"
    assert "id" not in dashboard
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels:
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references), panel["title"]


def test_it_is_tied_to_no_data_source_of_anybody(dashboard: Tree, panels: list[Tree]) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert list(variables) == ["datasource", "application", "model", "lane"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert all(source == chosen for panel in panels for source in [panel["datasource"], *(t["datasource"] for t in panel["targets"])])
    assert all(variable["datasource"] == chosen for variable in variables.values() if variable["type"] == "query")
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard))) - {"__rate_interval", "__all"}
    assert used == set(variables)


def test_panels_lie_side_by_side_within_the_width(dashboard: Tree) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


def test_prometheus_scrapes_the_port_that_the_pods_name_and_grafana_is_given_this_dashboard() -> None:
    made = {document["kind"]: document for document in documents("everything")}
    (endpoint,) = made["PodMonitor"]["spec"]["podMetricsEndpoints"]
    for pod in pods(made["RayService"]):
        assert endpoint["port"] in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}, pod["metadata"]["name"]
    assert made["ConfigMap"]["data"] == {"bge-serve.json": DASHBOARD.read_text()}
