"""What a proxy counts, as Prometheus reads it; needs ``prometheus_client``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from p2pstore.serving.proxy.fleet import Fleet
from p2pstore.serving.proxy.health import State
from p2pstore.serving.proxy.stats import Histogram, Stats
from p2pstore.serving.proxy.turns import Turns

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

PREFIX = "mooncake_proxy_"


def render(stats: Stats, fleet: Fleet, turns: Turns) -> bytes:
    """The metrics as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Now(stats, fleet, turns))
    return generate_latest(registry)


class _Now(Collector):
    def __init__(self, stats: Stats, fleet: Fleet, turns: Turns) -> None:
        self._stats, self._fleet, self._turns = stats, fleet, turns

    def collect(self) -> Iterable[Metric]:
        stats, turns = self._stats, self._turns
        yield _counter("requests", "Requests that were answered", ("path", "status"), stats.requests)
        yield _counter(
            "retries", "Requests begun anew, by the type of the instance that failed", ("type",), _keyed(stats.retries)
        )
        yield _counter("refused", "Requests that were refused", ("reason",), _keyed(stats.refused))
        yield CounterMetricFamily(PREFIX + "lost", "Requests that instances failed for good", stats.lost)
        yield CounterMetricFamily(PREFIX + "copies", "Hot prefixes copied to one more instance", stats.copies)
        yield CounterMetricFamily(PREFIX + "clients_left", "Clients that left before the end", stats.left)
        yield CounterMetricFamily(PREFIX + "tokens", "Events and tokens that were passed on", stats.tokens)
        yield GaugeMetricFamily(PREFIX + "requests_running", "Requests under way", turns.running)
        yield GaugeMetricFamily(PREFIX + "requests_waiting", "Requests that wait for a turn", turns.waiting)
        yield _histogram("time_to_first_token_seconds", "From a request's turn to its first token", stats.first)
        yield _histogram("request_seconds", "From a request's turn to its end", stats.whole)
        yield _histogram("prefill_seconds", "Of the prefill instance's answer", stats.prefill)
        yield from self._instances()

    def _instances(self) -> Iterable[Metric]:
        labels = ("type", "instance")
        up = GaugeMetricFamily(PREFIX + "instance_up", "Whether an instance takes requests", labels=labels)
        running = GaugeMetricFamily(PREFIX + "instance_requests_running", "Requests that are there", labels=labels)
        served = CounterMetricFamily(PREFIX + "instance_served", "Requests that it did", labels=labels)
        failed = CounterMetricFamily(PREFIX + "instance_failed", "Requests that it failed", labels=labels)
        told = "How often it was passed over for a while, since it failed several requests in a row"
        ejections = CounterMetricFamily(PREFIX + "instance_ejections", told, labels=labels)
        for member in self._fleet:
            whose = (member.kind.value, member.place.address)
            up.add_metric(whose, float(member.health.state is State.UP and not member.draining))
            running.add_metric(whose, member.running)
            served.add_metric(whose, member.served)
            failed.add_metric(whose, member.failed)
            ejections.add_metric(whose, member.ejections)
        return up, running, served, failed, ejections


def _keyed(counts: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(key,): count for key, count in counts.items()}


def _counter(name: str, what: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, what, labels=labels)
    for key, count in counts.items():
        family.add_metric([str(part) for part in key], count)
    return family


def _histogram(name: str, what: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, what)
    family.add_metric([], buckets=histogram.buckets(), sum_value=histogram.total)
    return family
