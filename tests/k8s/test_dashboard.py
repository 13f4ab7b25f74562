"""The Grafana dashboard: it is well-formed, and asks only for metrics that Ray and our own code really export, by labels that they have."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import wait
from dataclasses import dataclass
from importlib.util import find_spec
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import yaml

from bgeserve.engine import EmbedderEngine
from bgeserve.errors import ComputeError, DeadlineExceeded, ReplicaFull
from bgeserve.executor import Executor
from bgeserve.observe import Kind, Observer
from bgeserve.settings import EmbedderSettings
from tests.checkpoints import TEXTS, make_bert

K8S = Path(__file__).parent.parent.parent / "k8s"
DASHBOARD = K8S / "grafana" / "bge-serve.json"
SERVE_TAGS = frozenset({"application", "deployment", "replica"})
"""What Serve adds to the metrics of a replica."""
SUFFIXES: Mapping[Kind, tuple[str, ...]] = {"count": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
"""What Ray's exporter puts behind a name."""
RAY_KINDS: Mapping[str, Kind] = {"Counter": "count", "Gauge": "gauge", "Histogram": "histogram"}
WAIT_S = 20.0

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """`name`: a regular expression of what Prometheus sees."""

    name: str
    labels: frozenset[str]


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


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[Metric]:
    sent: dict[str, tuple[Kind, frozenset[str]]] = {}

    def sink(kind: Kind, name: str, value: float, tags: dict[str, str]) -> None:
        assert sent.setdefault(name, (kind, frozenset(tags))) == (kind, frozenset(tags)), "a Prometheus metric has one set of labels"

    observer = Observer(sink, model="tiny")  # as deployments/embedder.py makes it
    _answer_calls(make_bert(tmp_path_factory.mktemp("tiny")), observer)
    _refuse_expire_cancel_and_fail(observer)
    ours = [_metric(f"bge_serve_{name}", kind, tags | SERVE_TAGS) for name, (kind, tags) in sent.items()]
    return [*ours, *_metrics_of_ray()]


def _answer_calls(folder: Path, observer: Observer) -> None:
    engine = EmbedderEngine("tiny", EmbedderSettings(model=str(folder), dtype="float32", max_queue_s=60), observer)
    try:
        for lane in ("interactive", "bulk"):
            asyncio.run(engine.encode(TEXTS, lane=lane))
    finally:
        engine.close()


def _refuse_expire_cancel_and_fail(observer: Observer) -> None:
    entered, opened = threading.Event(), threading.Event()

    def compute(batch: list[int]) -> list[int]:
        entered.set()
        assert opened.wait(WAIT_S)
        if -1 in batch:
            raise RuntimeError("poison")
        return batch

    executor: Executor[int, int] = Executor(
        compute, max_batch_tokens=10, bulk_share=0.2, max_queue_s=1e-9, workers=1, side_by_side=1, observer=observer
    )

    def submit(number: int, *, cost: int = 1, deadline: float = inf) -> Any:
        return executor.submit([number], [cost], lane="interactive", deadline=deadline)

    try:
        running, late, abandoned = submit(0), submit(1, deadline=monotonic()), submit(2)
        assert abandoned.cancel()
        opened.set()
        wait([running, late], WAIT_S)
        assert isinstance(late.exception(), DeadlineExceeded)
        assert isinstance(submit(-1).exception(WAIT_S), ComputeError)
        # The speed is known by now: behind so much work nothing more is accepted.
        entered.clear()
        opened.clear()
        submit(3, cost=10**9)
        assert entered.wait(WAIT_S)
        with pytest.raises(ReplicaFull):
            submit(4)
    finally:
        opened.set()
        executor.close()


def _metrics_of_ray() -> Iterator[Metric]:
    """Those that Serve's own source defines, as it is installed."""
    spec = find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    for path in (Path(spec.origin).parent / "serve" / "_private").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in RAY_KINDS:
                keywords = {keyword.arg: keyword.value for keyword in node.keywords}
                name = _pattern(node.args[0] if node.args else keywords.get("name"))
                tags = [part.value for part in ast.walk(keywords.get("tag_keys", ast.Tuple([]))) if isinstance(part, ast.Constant)]
                # A metric that is made inside a replica has Serve's tags too.
                yield _metric(name, RAY_KINDS[node.func.attr], frozenset(tags) | SERVE_TAGS)


def _pattern(name: ast.expr | None) -> str:
    """Such as `serve_num_[a-z]+_requests`, for a name with the protocol in it."""
    parts = name.values if isinstance(name, ast.JoinedStr) else [name]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "[a-z]+" for part in parts)


def _metric(name: str, kind: Kind, labels: frozenset[str]) -> Metric:
    stem = name.removesuffix("_total") if kind == "count" else name
    return Metric(f"ray_{stem}({'|'.join(SUFFIXES[kind])})", labels | {"le"} if kind == "histogram" else labels)


def _problems(query: Query, exported: list[Metric]) -> list[str]:
    found: list[str] = []
    known: set[str] = set()
    for name, labels in query.selectors():
        metrics = [metric for metric in exported if re.fullmatch(metric.name, name)]
        if not metrics:
            found.append(f"{query.where}: nothing exports {name}")
        offered = {label for metric in metrics for label in metric.labels}
        known |= offered
        found += [f"{query.where}: {name} has no label {label}" for label in sorted(labels - offered) if metrics]
    if known and (unknown := query.grouped_by() - known):
        found.append(f"{query.where}: groups by {sorted(unknown)}")
    named = set(re.findall(r"\b(?:ray|bge)_\w+", query.text))
    return found + [f"{query.where}: {name} has no selector" for name in sorted(named - {name for name, _ in query.selectors()})]


def _variable_queries(dashboard: Tree) -> Iterator[tuple[str, str]]:
    """`label_values(metric, label)` as a query that groups by the label."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((\w+)(\{.*\})?, (\w+)\)", variable["query"]["query"])
            assert asked, variable["name"]
            assert variable["definition"] == variable["query"]["query"]
            yield variable["name"], f"count by ({asked[3]}) ({asked[1]}{asked[2] or '{}'})"


def test_every_metric_and_label_is_exported(queries: list[Query], exported: list[Metric]) -> None:
    assert [problem for query in queries for problem in _problems(query, exported)] == []


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
    assert _problems(Query("here", text), exported) == ([] if said is None else [f"here: {said}"])


def test_whatever_a_model_measures_is_shown(queries: list[Query], exported: list[Metric]) -> None:
    asked = {name for query in queries for name, _ in query.selectors()}
    unseen = [one.name for one in exported if "bge_serve" in one.name and not any(re.fullmatch(one.name, name) for name in asked)]
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


def test_the_readme_scrapes_the_port_that_the_pods_name() -> None:
    (monitor,) = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", (K8S / "README.md").read_text(), re.DOTALL)]
    assert monitor["kind"] == "PodMonitor"
    manifest = yaml.safe_load((K8S / "embed-only.yaml").read_text())
    ports = manifest["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= {port["name"] for port in ports}
