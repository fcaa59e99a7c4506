"""The table, the document that is made of it, and the dashboard that shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from p2pstore.agent.metrics import METRICS, PREFIX
from p2pstore.metrics.exposition import expose, families_of
from p2pstore.metrics.metric import Kind
from tests.p2pstore.metrics.test_exposition import OPENMETRICS, samples
from tests.p2pstore.nodes import Start, get, register, root, start

__all__ = ["root", "start"]

ROOT = Path(__file__).resolve().parents[3]
DASHBOARD = json.loads((ROOT / "docs/grafana-dashboard.json").read_text())
KNOWN = {name for metric in METRICS for name in metric.samples}
PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes"}


def test_names_are_as_prometheus_wants_them() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(PREFIX + r"[a-z]+(_[a-z]+)*", metric.name), metric.name
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_info")), metric.name
        assert set(metric.labels) <= {"version", "python", "state", "outcome", "transport"}, metric.labels
        units = re.findall(r"milli|micro|_ms\b|kilo|mega|giga|_kb|_mb|minutes", metric.name)
        assert units == [], "base units are seconds and bytes"


def test_what_is_started_is_also_finished() -> None:
    started = {metric.name.removesuffix("_started") for metric in METRICS if metric.name.endswith("_started")}
    finished = {metric.name.removesuffix("_finished") for metric in METRICS if metric.name.endswith("_finished")}
    assert started == finished
    assert len(started) >= 4


async def test_every_metric_is_there_from_the_start(start: Start) -> None:
    node = await start("alpha")
    found = samples(expose(families_of(METRICS, node), OPENMETRICS)[0].decode(), openmetrics=True)
    assert {name for name, _ in found if name.startswith(PREFIX)} == KNOWN
    assert {name for name, _ in found} >= PROCESS
    counters = {name for metric in METRICS if metric.kind is Kind.COUNTER for name in metric.samples}
    assert {name: value for (name, _), value in found.items() if name in counters and value} == {}


async def test_what_nodes_do_is_counted(start: Start, root: Path, tmp_path: Path) -> None:
    alpha, beta = await start("alpha"), await start("beta")
    registered = await register(alpha, root)
    result = await get(beta, tmp_path / "copy", transport="tcp")
    await get(beta, tmp_path / "again", transport="tcp")
    with pytest.raises(Exception, match="nothing"):
        await get(beta, tmp_path / "none", name="nothing")
    await beta.verify("n", lambda *_: None)

    def of(node: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        found = samples(expose(families_of(METRICS, node), "")[0].decode(), openmetrics=False)
        return {(name.removeprefix(PREFIX), labels): value for (name, labels), value in found.items()}

    giver, getter = of(alpha), of(beta)
    assert giver["registers_started_total", ()] == giver["registers_finished_total", (("outcome", "ok"),)] == 1
    assert giver["registered_objects_total", ()] == 1
    assert giver["peer_requests_started_total", ()] >= 2
    assert getter["gets_started_total", ()] == 3
    assert getter["gets_finished_total", (("outcome", "ok"),)] == 2
    assert getter["gets_finished_total", (("outcome", "failed"),)] == 1
    assert getter["get_duration_seconds_count", ()] == 2
    assert getter["pulled_bytes_total", (("transport", "tcp"),)] == result.bytes_pulled > 0
    assert getter["reused_bytes_total", ()] >= registered["size"]
    assert getter["verifies_finished_total", (("outcome", "ok"),)] == 1
    for node in (giver, getter):
        assert node["objects", ()] == 1
        assert node["held_bytes", ()] == registered["size"]
        assert node["contents", (("state", "complete"),)] == 1
        assert node["contents", (("state", "partial"),)] == 0
    assert beta.status()["peers"] == [{"node": "alpha", "bytes": result.bytes_pulled}]
    assert beta.status()["bytes_pulled"] == result.bytes_pulled
    assert alpha.status()["receivers"] == 0
    await alpha.unregister("n")
    gone = of(alpha)
    assert (gone["objects", ()], gone["held_bytes", ()], gone["contents", (("state", "complete"),)]) == (0, 0, 0)
    assert gone["given_up_total", ()] == 0


async def test_what_had_to_be_given_up_is_counted(start: Start, root: Path) -> None:
    node = await start("alpha")
    await register(node, root)
    (root / "config.json").write_bytes(b"other")
    await node.parts.watcher.look()
    assert node.holdings.given_up == 1
    assert node.holdings.serving.whole_bytes == 0


# The dashboard


def expressions() -> list[str]:
    shown = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*shown, *(variable["query"] for variable in DASHBOARD["templating"]["list"][1:])]


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    assert DASHBOARD["title"]
    assert DASHBOARD["schemaVersion"] >= 36
    assert "id" not in DASHBOARD, "it would take another's place"
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    for panel in DASHBOARD["panels"]:
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs) > 0
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"


@pytest.mark.parametrize("expression", expressions())
def test_the_dashboard_asks_for_metrics_that_exist(expression: str) -> None:
    named = set(re.findall(r"\b(?:mooncake|process)_\w+", expression))
    assert named
    assert named <= KNOWN | PROCESS
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)


@pytest.mark.parametrize("expression", expressions())
def test_the_dashboard_has_rates_of_counters_and_no_others(expression: str) -> None:
    kinds = {name: metric.kind for metric in METRICS for name in metric.samples}
    for name, kind in kinds.items():
        if re.search(rf"\b{name}\b", expression) and kind is not Kind.INFO:
            rated = bool(re.search(rf"(rate|increase)\({name}\b", expression))
            assert rated == (kind in {Kind.COUNTER, Kind.HISTOGRAM}), name


@pytest.mark.parametrize("expression", expressions())
def test_the_dashboard_parts_by_labels_that_exist(expression: str) -> None:
    labels = {name: metric.labels for metric in METRICS for name in metric.samples}
    for by in re.findall(r"sum by \((\w+)\)", expression):
        name = re.search(r"mooncake_\w+", expression)
        assert name is not None
        assert by in {*labels[name[0]], "le"}
