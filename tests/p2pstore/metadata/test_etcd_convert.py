"""Our model in etcd's messages: ranges that hold a prefix and nothing else, conditions, operations, events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.etcd import messages as m
from p2pstore.metadata.etcd_convert import from_event, range_request, to_compare, to_operation, watch_request
from p2pstore.metadata.rules import encode_key
from p2pstore.metadata.store import Absent, AbsentPrefix, Changed, Delete, HasValue, Put, Removed, Unchanged

KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8)


def holds(request: object, key: str) -> bool:
    """Whether etcd would count a key among the request's range."""
    start, end = bytes(request.key), bytes(request.range_end)  # type: ignore[attr-defined]
    return start <= encode_key(key) and (end == b"\0" or encode_key(key) < end)


@given(KEYS, KEYS.filter(bool))
def test_a_range_holds_the_keys_of_its_prefix_alone(prefix: str, key: str) -> None:
    assert holds(range_request(prefix), key) == key.startswith(prefix)
    assert holds(watch_request(prefix, 7).create_request, key) == key.startswith(prefix)


@given(KEYS, KEYS.filter(bool), KEYS.filter(bool))
def test_a_page_begins_after_the_last_key_of_the_one_before(prefix: str, last: str, key: str) -> None:
    wanted = key.startswith(prefix) and key > last
    assert holds(range_request(prefix, after=last), key) == wanted


def test_conditions() -> None:
    absent = to_compare(Absent("a"))
    assert (absent.target, absent.version, absent.key, absent.range_end) == (m.COMPARE_VERSION, 0, b"a", b"")
    prefix = to_compare(AbsentPrefix("a/"))
    assert (prefix.target, prefix.version, prefix.key, prefix.range_end) == (m.COMPARE_VERSION, 0, b"a/", b"a0")
    unchanged = to_compare(Unchanged("a", 9))
    assert (unchanged.target, unchanged.mod_revision) == (m.COMPARE_MOD_REVISION, 9)
    value = to_compare(HasValue("a", b"v"))
    assert (value.target, value.value) == (m.COMPARE_VALUE, b"v")


def test_operations() -> None:
    put = to_operation(Put("a", b"v", 5)).request_put
    assert (put.key, put.value, put.lease) == (b"a", b"v", 5)
    delete = to_operation(Delete("a")).request_delete_range
    assert (delete.key, delete.range_end) == (b"a", b"")


@pytest.mark.parametrize("deleted", [False, True])
def test_events(deleted: bool) -> None:
    kv = m.KeyValue(key=b"a", value=b"" if deleted else b"v", mod_revision=9)
    event = from_event(m.WatchResponse(events=[{"type": m.EVENT_DELETE if deleted else 0, "kv": kv}]).events[0])
    if deleted:
        assert event == Removed("a", 9)
    else:
        assert isinstance(event, Changed)
        assert (event.item.key, event.item.value, event.item.mod_revision) == ("a", b"v", 9)
