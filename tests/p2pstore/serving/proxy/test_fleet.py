"""Instances as people name them."""

from __future__ import annotations

import pytest

from p2pstore.serving.events import Kind
from p2pstore.serving.proxy.fleet import (
    BadInstance,
    Fleet,
    Member,
    Place,
    parse_bootstrap,
    parse_instance,
    parse_instances,
    with_events,
)
from p2pstore.serving.proxy.health import Health


@pytest.mark.parametrize(
    ("text", "place", "address"),
    [
        ("localhost:8100", Place("localhost", 8100), "localhost:8100"),
        ("10.0.0.1:8100", Place("10.0.0.1", 8100), "10.0.0.1:8100"),
        ("[::1]:8100", Place("::1", 8100), "[::1]:8100"),
        ("prefill-0.pods.example:80", Place("prefill-0.pods.example", 80), "prefill-0.pods.example:80"),
        ("http://h:1/", Place("h", 1), "h:1"),
        ("https://[::1]:1", Place("::1", 1, "https"), "[::1]:1"),
    ],
)
def test_instances(text: str, place: Place, address: str) -> None:
    assert parse_instance(text) == place
    assert place.address == address
    assert place.url == f"{place.scheme}://{address}"


@pytest.mark.parametrize(
    "text", ["", "h", "h:0", "h:99999", "h:x", "h:1/v1", "h:1/", "ftp://h:1", "::1:80", "a b:1", "-p:1:2"]
)
def test_what_is_no_instance(text: str) -> None:
    with pytest.raises(BadInstance):
        parse_instance(text)


def test_a_bootstrap_port_may_stand_behind_each() -> None:
    assert parse_instances(["a:1", "b:2"]) == [Place("a", 1), Place("b", 2)]
    first, second, third = parse_instances(["http://a:1", "8998", "b:2", "none", "[::1]:3", "7"])
    assert (first.bootstrap_url, second.bootstrap_url, third.bootstrap_url) == ("http://a:8998", None, "http://[::1]:7")


def test_events_of_instances() -> None:
    places = parse_instances(["a:1", "7", "b:2", "c:3"])
    first, second, third = with_events(places, ["a:1=tcp://a:5557,tcp://a:5558", "http://b:2=ipc:///run/x"])
    assert (first.bootstrap, first.events, first.replay) == (7, "tcp://a:5557", "tcp://a:5558")
    assert (second.events, second.replay, third.events) == ("ipc:///run/x", None, None)


@pytest.mark.parametrize(
    "word", ["a:1", "a:1=", "b:1=tcp://a:1", "a:1=a:1", "a:1=tcp://a", "a:1=tcp://a:1,", "a:1=ipc://"]
)
def test_what_are_no_events_of_an_instance(word: str) -> None:
    with pytest.raises(BadInstance):
        with_events(parse_instances(["a:1"]), [word])


@pytest.mark.parametrize("words", [["8998"], ["a:1", "0"], ["a:1", "70000"], ["a:1", "a:1"], ["none", "a:1"]])
def test_words_that_name_no_instances(words: list[str]) -> None:
    with pytest.raises(BadInstance):
        parse_instances(words)


@pytest.mark.parametrize("word", ["", "x", "-1", "1.5", "9" * 5000])
def test_what_is_no_bootstrap_port(word: str) -> None:
    with pytest.raises(BadInstance):
        parse_bootstrap(word)


def test_only_who_is_up_and_stays_takes_requests() -> None:
    members = [Member(Place("h", port), kind, Health(0.0)) for port, kind in ((1, Kind.PREFILL), (2, Kind.DECODE))]
    fleet = Fleet({member.name: member for member in members})
    assert [member.name for member in fleet] == ["prefill/h:1", "decode/h:2"]
    assert not fleet.ready
    for member in members:
        member.health.probed(None, 1.0)
    assert fleet.ready
    assert fleet.of(Kind.PREFILL) == members[:1]
    members[1].draining = True
    assert not fleet.ready
    assert members[1].to_json(5.0)["state"] == "draining"
    assert members[1].to_json(5.0, 3.0)["state"] == "draining"
    members[0].last_failure = "it answers with status 500"
    ejected = members[0].to_json(5.0, 3.0)
    assert (ejected["state"], ejected["why"].rpartition(": ")[2]) == ("ejected", members[0].last_failure)
    assert (ejected["seconds"], members[0].to_json(5.0)["seconds"]) == (2.0, 4.0), "since it is so, not since it is up"


def test_ranks_in_turn() -> None:
    member = Member(Place("h", 1), Kind.PREFILL, Health(0.0))
    assert member.next_rank() is None
    member.ranks = (("0", "a"), ("1", "b"))
    assert {member.next_rank(), member.next_rank()} == set(member.ranks)
