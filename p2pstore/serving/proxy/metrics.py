"""What a proxy counts, as Prometheus reads it; needs ``prometheus_client``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import Metric

from p2pstore.metrics.exposition import counter, expose, gauge, histogram
from p2pstore.serving.proxy.fleet import Fleet
from p2pstore.serving.proxy.health import State
from p2pstore.serving.proxy.stats import Stats
from p2pstore.serving.proxy.turns import Turns

PREFIX = "mooncake_proxy_"


def render(stats: Stats, fleet: Fleet, turns: Turns, accept: str = "") -> tuple[bytes, str]:
    """The metrics as text, and its content type: OpenMetrics where the header ``accept`` asks for it."""
    return expose([*_of_requests(stats, turns), *_of_instances(fleet)], accept)


def _of_requests(stats: Stats, turns: Turns) -> Iterable[Metric]:
    yield counter(PREFIX + "requests", "Requests that were answered", ("path", "status"), stats.requests)
    again = "Requests begun anew, by the type of the instance that failed"
    yield counter(PREFIX + "retries", again, ("type",), _keyed(stats.retries))
    yield counter(PREFIX + "refused", "Requests that were refused", ("reason",), _keyed(stats.refused))
    for name, what, count in (
        ("lost", "Requests that instances failed for good", stats.lost),
        ("copies", "Hot prefixes copied to one more instance", stats.copies),
        ("clients_left", "Clients that left before the end", stats.left),
        ("tokens", "Events and tokens that were passed on", stats.tokens),
    ):
        yield counter(PREFIX + name, what, (), {(): count})
    yield gauge(PREFIX + "requests_running", "Requests under way", (), {(): turns.running})
    yield gauge(PREFIX + "requests_waiting", "Requests that wait for a turn", (), {(): turns.waiting})
    first = "From a request's turn to its first token"
    yield histogram(PREFIX + "time_to_first_token_seconds", first, stats.first)
    yield histogram(PREFIX + "request_seconds", "From a request's turn to its end", stats.whole)
    yield histogram(PREFIX + "prefill_seconds", "Of the prefill instance's answer", stats.prefill)


def _of_instances(fleet: Fleet) -> Iterable[Metric]:
    labels = ("type", "instance")
    members = {(member.kind.value, member.place.address): member for member in fleet}

    up = {whose: float(each.health.state is State.UP and not each.draining) for whose, each in members.items()}
    yield gauge(PREFIX + "instance_up", "Whether an instance takes requests", labels, up)
    running = {whose: each.running for whose, each in members.items()}
    yield gauge(PREFIX + "instance_requests_running", "Requests that are there", labels, running)
    served = {whose: each.served for whose, each in members.items()}
    yield counter(PREFIX + "instance_served", "Requests that it did", labels, served)
    failed = {whose: each.failed for whose, each in members.items()}
    yield counter(PREFIX + "instance_failed", "Requests that it failed", labels, failed)
    told = "How often it was passed over for a while, since it failed several requests in a row"
    ejections = {whose: each.ejections for whose, each in members.items()}
    yield counter(PREFIX + "instance_ejections", told, labels, ejections)


def _keyed(counts: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(key,): count for key, count in counts.items()}
