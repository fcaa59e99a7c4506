from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.errors import UsageError
from p2pstore.metadata.rules import check_transaction, decode_key, encode_key, prefix_end
from p2pstore.metadata.store import MAX_OPERATIONS, Absent, Delete, Put


@given(st.binary())
def test_any_bytes_are_a_key_and_come_back(raw: bytes) -> None:
    assert encode_key(decode_key(raw)) == raw


@given(st.binary(), st.binary())
def test_the_end_of_a_prefix_parts_its_keys_from_all_others(prefix: bytes, key: bytes) -> None:
    end = prefix_end(prefix)
    inside = key >= prefix and (end == b"\0" or key < end)
    assert inside == key.startswith(prefix)


def test_the_end_of_a_prefix_of_highest_bytes() -> None:
    assert prefix_end(b"a\xff\xff") == b"b"
    assert prefix_end(b"\xff") == b"\0"
    assert prefix_end(b"") == b"\0"


def test_transactions() -> None:
    check_transaction([], [])
    check_transaction([Delete("a"), Delete("a"), Put("b", b"")], [Absent("b"), Absent("b")])
    for operations in ([Put("a", b""), Put("a", b"")], [Delete("a"), Put("a", b"")], [Put("", b"")]):
        with pytest.raises(UsageError):
            check_transaction(operations, [])
    with pytest.raises(UsageError):
        check_transaction([], [Absent("a")] * (MAX_OPERATIONS + 1))
