"""Both formats, read by Prometheus's own parsers."""

from __future__ import annotations

import pytest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from p2pstore.metrics.exposition import counter, expose, families_of
from p2pstore.metrics.histogram import Histogram
from p2pstore.metrics.metric import Kind, Metric

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"


def samples(text: str, *, openmetrics: bool) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    read = read_openmetrics if openmetrics else read_text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in read(text)
        for sample in family.samples
    }


def table() -> list[Metric[dict[str, float]]]:
    seconds = Histogram((1.0, 2.0))
    seconds.observe(1.5)
    return [
        Metric("m_build", Kind.INFO, "Build", lambda _: {("1.2", "x"): 1}, ("version", "python")),
        Metric("m_things", Kind.COUNTER, "Things", lambda source: source["things"]),
        Metric("m_kinds", Kind.COUNTER, "Kinds", lambda _: {("a",): 1, ('"\\\n',): 2}, ("kind",)),
        Metric("m_now", Kind.GAUGE, "Now", lambda source: source["now"]),
        Metric("m_seconds", Kind.HISTOGRAM, "Seconds", lambda _: seconds),
    ]


@pytest.mark.parametrize("openmetrics", [True, False])
def test_a_table_is_read(openmetrics: bool) -> None:
    families = families_of(table(), {"things": 7, "now": -1.5})
    body, content_type = expose(families, OPENMETRICS if openmetrics else BROWSER)
    assert content_type.startswith("application/openmetrics-text" if openmetrics else "text/plain")
    found = samples(body.decode(), openmetrics=openmetrics)
    assert found["m_build_info", (("python", "x"), ("version", "1.2"))] == 1
    assert found["m_things_total", ()] == 7
    assert found["m_kinds_total", (("kind", '"\\\n'),)] == 2
    assert found["m_now", ()] == -1.5
    assert found["m_seconds_bucket", (("le", "2.0"),)] == 1
    assert found["m_seconds_bucket", (("le", "1.0"),)] == 0
    assert found["m_seconds_sum", ()] == 1.5
    assert found["process_resident_memory_bytes", ()] > 0


def test_families_that_are_no_tables() -> None:
    families: list[Family] = [counter("m_a", "A", ("x", "y"), {("p", 1): 2})]
    assert samples(expose(families, "")[0].decode(), openmetrics=False) == {("m_a_total", (("x", "p"), ("y", "1"))): 2}
