"""Metrics in the two text formats that Prometheus reads; needs ``prometheus_client``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client import metrics_core as core
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from p2pstore.metrics.histogram import Histogram
from p2pstore.metrics.metric import Kind, Metric

S = TypeVar("S")


def expose(families: Iterable[core.Metric], accept: str) -> tuple[bytes, str]:
    """The metrics as text, and its content type: OpenMetrics where the header ``accept`` asks for it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(families))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def families_of(table: Sequence[Metric[S]], source: S) -> Iterator[core.Metric]:
    """Each metric of a table, as ``source`` has it now; then what the kernel says of this process."""
    for metric in table:
        yield _family(metric, source)
    yield from ProcessCollector(registry=None).collect()


def _family(metric: Metric[S], source: S) -> core.Metric:
    value = metric.read(source)
    if isinstance(value, Histogram):
        return histogram(metric.name, metric.help, value)
    values = value if isinstance(value, Mapping) else {(): value}
    if metric.kind is Kind.INFO:
        (told,) = values
        return InfoMetricFamily(metric.name, metric.help, dict(zip(metric.labels, told, strict=True)))
    make = counter if metric.kind is Kind.COUNTER else gauge
    return make(metric.name, metric.help, metric.labels, values)


def counter(name: str, what: str, labels: Sequence[str], counts: Mapping[Any, float]) -> core.Metric:
    """A counter; ``counts`` are by the values of its labels, and the name is without ``_total``."""
    return _filled(CounterMetricFamily(name, what, labels=labels), counts)


def gauge(name: str, what: str, labels: Sequence[str], values: Mapping[Any, float]) -> core.Metric:
    """A gauge; ``values`` are by the values of its labels."""
    return _filled(GaugeMetricFamily(name, what, labels=labels), values)


def histogram(name: str, what: str, seconds: Histogram) -> core.Metric:
    """A histogram."""
    family = HistogramMetricFamily(name, what)
    family.add_metric([], buckets=seconds.buckets(), sum_value=seconds.total)
    return family


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[tuple[object, ...], float]) -> core.Metric:
    for key, value in values.items():
        family.add_metric([str(part) for part in key], value)
    return family


class _Once(Collector):
    def __init__(self, families: Iterable[core.Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[core.Metric]:
        return self._families
