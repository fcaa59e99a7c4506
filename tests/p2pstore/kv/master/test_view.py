"""What is shown of a running master: of a real pool, and of callers as the server notes them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from engine.rpc.codes import Code
from p2pstore.kv.master.callers import Caller
from p2pstore.kv.master.metrics import families, render
from p2pstore.kv.master.server import Master, MasterSettings
from p2pstore.kv.master.view import View
from p2pstore.kv.master.why_clients import why_callers
from p2pstore.kv.master.why_key import why_key
from p2pstore.kv.pool.walks import whole
from tests.clocks import Clock
from tests.p2pstore.kv.pool.pools import MIB, House, ident


def caller(address: str = "10.0.0.3:40000", **known: Any) -> Caller:
    made = Caller(address, Clock().now)
    made.generation = "0.3.13"
    made.calls = 5
    made.clients = {ident("a")}
    for name, value in known.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def house() -> House:
    return House(tenants=True)


@pytest.fixture
def running(house: House) -> Master:
    """A master that does not listen, whose callers are told."""
    master = Master(MasterSettings(), house.pool)
    master.address = "127.0.0.1:50051"
    master.started = house.clock()
    master.callers.known["10.0.0.3:40000"] = caller()
    master.counts["PutStart"][:2] = [3, 1]
    return master


@pytest.fixture
def view(running: Master, house: House) -> View:
    return View(running, house.clock)


def causes(view: View, key: str, tenant: str = "default") -> list[str]:
    return [finding.cause for finding in why_key(view.key_facts(key, tenant), view.pool_facts())]


def test_keys(view: View, house: House) -> None:
    client = house.join("a")
    house.put(client, ["x", "y"], 4096)
    house.put(client, ["z"], tenant="red")
    house.start(client, ["begun"])
    assert {tenant: sorted(keys) for tenant, keys in view.names()} == {"default": ["begun", "x", "y"], "red": ["z"]}
    shown = view.shown("default", "x")
    assert shown is not None
    assert shown == ("x", "default", 4096, 1, True)
    assert view.shown("default", "begun") is None
    assert view.shown("default", "gone") is None
    assert view.replicas("", "default") is Code.BAD_PARAMS
    assert view.replicas("x", "red") is Code.NOT_FOUND


def test_looking_grants_no_lease(view: View, house: House) -> None:
    client = house.join("a")
    house.put(client, ["x"])
    view.shown("default", "x")
    assert causes(view, "x") == ["readable"]
    assert view.remove("x", "default", force=False) is Code.OK
    house.put(client, ["x"])
    house.pool.exist(["x"])
    assert causes(view, "x") == ["readable", "leased"]
    assert view.remove("x", "default", force=False) is Code.LEASED
    assert whole(view.remove_all("", force=True)) == 1


def test_a_key_that_is_being_copied(view: View, house: House) -> None:
    client, _ = house.join("a"), house.join("b")
    house.put(client, ["x"], prefer_alloc_in_same_node=False, preferred_segments=["a"])
    assert not isinstance(house.pool.copy_start(client, "x", "a", ["b"]), Code)
    assert causes(view, "x") == ["readable", "busy"]
    assert view.remove("x", "default", force=True) is Code.HAS_TASK
    assert house.pool.copy_end(client, "x") is Code.OK
    assert causes(view, "x") == ["readable"]


def test_what_became_of_a_key(view: View, house: House) -> None:
    client = house.join("a", 4 * MIB)
    assert causes(view, "x") == ["never-put"]
    house.start(client, ["x"])
    assert causes(view, "x") == ["writing"]
    house.pool.put_revoke(client, ["x"])
    assert causes(view, "x") == ["revoked"]
    house.put(client, ["x"])
    assert causes(view, "x", "red") == ["other-tenant"]
    house.pool.remove(["x"])
    assert causes(view, "x") == ["removed"]
    house.put(client, ["x"])
    house.put(client, [f"more-{number}" for number in range(8)])
    assert causes(view, "x") == ["evicted"]


def test_a_put_that_was_refused(view: View, house: House) -> None:
    client = house.join("a", 4 * MIB)
    house.put(client, ["x"], 4 * MIB, with_hard_pin=True)
    assert house.put(client, ["y"]) == []
    (found,) = why_key(view.key_facts("y", "default"), view.pool_facts())
    assert found.cause == "refused"
    assert "a put of it by 10.0.0.3:40000 was refused" in found.text
    assert "with -200: no segment has room for the value" in found.text


def test_an_owner_that_is_silent_then_absent_then_gone(view: View, house: House) -> None:
    client = house.join("a")
    house.put(client, ["x"])
    house.later(5)
    assert causes(view, "x") == ["owner-silent"]
    house.later(6)
    assert causes(view, "x") == ["owner-absent"]
    house.later(house.settings.keep_absent + 1)
    assert causes(view, "x") == ["unmounted"]


def test_a_put_that_was_refused_since_all_memory_is_being_emptied(view: View, house: House) -> None:
    client = house.join("a")
    house.put(client, ["x"])
    job = house.pool.drain(["a"])
    assert isinstance(job, bytes)
    assert house.put(client, ["y"]) == []
    assert causes(view, "y") == ["drained", "refused"]
    house.pool.remove(["x"], force=True)
    house.ticked()
    assert house.pool.segments()[0].status == "DRAINED"
    assert causes(view, "y") == ["drained", "refused"]


@pytest.mark.parametrize("hint", ["its connection is gone", "somebody could not read from it"])
def test_an_owner_that_is_in_doubt_is_not_said_to_have_it(view: View, house: House, hint: str) -> None:
    client = house.join("a")
    house.put(client, ["x"])
    if hint == "its connection is gone":
        house.pool.lost(client)
    else:
        house.pool.suspect("a")
    assert causes(view, "x") == ["owner-unreachable"]
    assert [each.suspected for each in view.pool_facts().segments] == [True]
    house.pool.ping(client)
    assert causes(view, "x") == ["readable"]


def test_keys_that_differ_in_one_part_are_found(view: View, house: House) -> None:
    client = house.join("a")
    house.put(client, ["llama@tp_rank:0@" + "ab" * 16])
    assert causes(view, "llama@tp_rank:0@" + "cd" * 16) == ["never-put", "other-hash"]


def test_the_readings(view: View, house: House, running: Master) -> None:
    client = house.join("a")
    house.put(client, ["x", "y"])
    running.callers.known["b"] = caller("b", generation="", connected=True, unknown=Counter({"Fly": 2}))
    running.callers.known["c"] = caller("c", connected=False, unknown=Counter({"Fly": 1}))
    readings = view.readings()
    text = render(families(readings))
    assert "\nmaster_key_count 2\n" in text
    assert f"\nmaster_allocated_bytes {2 * MIB}\n" in text
    assert "\nmem_cache_nums_ 2\n" in text
    assert "\nmaster_put_start_failures_total 1\n" in text
    assert f'\nsegment_allocated_bytes{{segment="a"}} {2 * MIB}\n' in text
    assert "\nmaster_value_size_bytes_count 2\n" in text
    assert '\nmooncake_store_unknown_calls_total{call="Fly"} 3\n' in text
    assert readings.callers == {"0.3.13": 1, "unknown": 1}


def test_callers_the_last_first(view: View, running: Master, house: House) -> None:
    running.callers.known["old"] = caller("old", last=house.clock() - 100, connected=False)
    running.callers.known["10.0.0.3:40000"].failures[Code.NO_SPACE] = 3
    facts = view.caller_facts()
    assert [each.address for each in facts] == ["10.0.0.3:40000", "old"]
    assert [each.last_ago for each in facts] == [0.0, 100.0]
    assert facts[0].failures == {-200: 3}
    found = why_callers(facts, view.pool_facts())
    assert [finding.cause for finding in found] == ["no-memory", "failed-200", "gone"]


def test_the_status(view: View, house: House) -> None:
    house.later(3)
    status = view.status()
    assert (status["address"], status["up"]) == ("127.0.0.1:50051", 3.0)
    assert view.ready()


def test_segments(view: View, house: House) -> None:
    house.join("a")
    (segment,) = view.segments()
    assert (segment.name, segment.status, segment.size) == ("a", "OK", 64 * MIB)
