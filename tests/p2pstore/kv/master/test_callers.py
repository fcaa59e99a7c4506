"""What is remembered of those who call, and how much of it."""

from __future__ import annotations

import pytest

from p2pstore.kv.master import callers as c
from p2pstore.kv.master.callers import OTHERS, Callers


def test_a_caller_is_remembered_after_its_end_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "MAX_GONE_CALLERS", 2)
    callers = Callers(lambda: 5.0)
    came = [callers.came(f"h:{number}") for number in range(4)]
    assert all(each.connected and each.first == 5.0 for each in came)
    for each in came[:3]:
        callers.went(each, 7.0)
    assert list(callers.known) == ["h:1", "h:2", "h:3"]
    assert [(each.connected, each.last) for each in callers.known.values()] == [(False, 7.0), (False, 7.0), (True, 5.0)]


def test_an_address_that_is_used_again_is_another_caller() -> None:
    callers = Callers()
    old = callers.came("h:1")
    callers.went(old, 1.0)
    new = callers.came("h:1")
    callers.went(old, 1.0)
    assert callers.known["h:1"] is new
    assert new.connected


def test_unknown_calls_are_counted_by_name_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "MAX_UNKNOWN", 2)
    caller = Callers().came("h:1")
    assert [caller.did_not_know(name) for name in ("a", "a", "b", "c", "d")] == [True, False, True, True, False]
    assert caller.unknown == {"a": 2, "b": 1, OTHERS: 2}


def test_tenants_are_remembered_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "MAX_CLIENTS", 2)
    caller = Callers().came("h:1")
    for tenant in "abc":
        caller.of_tenant(tenant)
    assert caller.tenants == {"a", "b"}
