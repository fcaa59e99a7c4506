"""What a proxy counts, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families as read_text

from p2pstore.serving.events import Kind
from p2pstore.serving.proxy.fleet import Fleet, Member, Place
from p2pstore.serving.proxy.health import Health
from p2pstore.serving.proxy.metrics import render
from p2pstore.serving.proxy.stats import Stats
from p2pstore.serving.proxy.turns import Turns


def samples(stats: Stats, fleet: Fleet) -> dict[tuple[str, ...], float]:
    found = {}
    for family in read_text(render(stats, fleet, Turns())[0].decode()):
        for sample in family.samples:
            found[(sample.name, *(sample.labels[key] for key in sorted(sample.labels)))] = sample.value
    return found


def test_all_is_shown() -> None:
    stats = Stats()
    stats.requests["/v1/completions", 200] += 2
    stats.retries["prefill"] += 1
    stats.refused["queue"] += 3
    stats.lost, stats.left, stats.tokens = 4, 5, 6
    member = Member(Place("::1", 8100), Kind.PREFILL, Health(0.0), running=7, served=8, failed=9)
    found = samples(stats, Fleet({member.name: member}))
    name = "mooncake_proxy_"
    assert found[name + "requests_total", "/v1/completions", "200"] == 2
    assert found[name + "retries_total", "prefill"] == 1
    assert found[name + "refused_total", "queue"] == 3
    assert (found[name + "lost_total",], found[name + "clients_left_total",], found[name + "tokens_total",]) == (
        4,
        5,
        6,
    )
    whose = ("[::1]:8100", "prefill")
    assert found[(name + "instance_up", *whose)] == 0
    assert found[(name + "instance_requests_running", *whose)] == 7
    assert (found[(name + "instance_served_total", *whose)], found[(name + "instance_failed_total", *whose)]) == (8, 9)


def test_an_address_cannot_break_the_text() -> None:
    member = Member(Place('a"\n', 1), Kind.DECODE, Health(0.0))
    assert samples(Stats(), Fleet({member.name: member}))["mooncake_proxy_instance_up", 'a"\n:1', "decode"] == 0
