"""What the index has of a value."""

from __future__ import annotations

from p2pstore.kv.pool.entries import Entry, Held, Tenant, fresh
from p2pstore.kv.pool.segments import Mounted
from tests.p2pstore.kv.pool.pools import ident, segment


def test_entries_of_a_batch_are_as_those_that_are_made_one_by_one() -> None:
    memory, tenant, writer = Mounted(segment("a"), ident("a"), 1), Tenant("t"), ident("w")
    held = Held(memory, 4096)
    one = Entry("k", tenant, 7, writer, held)
    other, last = fresh([(memory, 4096), (memory, 8192)], ["k", "l", "no place"], tenant, 7, writer)
    assert isinstance(other.place, Held)
    assert fields(other.place) == fields(held)
    assert {**fields(other), "place": held} == fields(one)
    assert (last.key, last.memory[0].offset) == ("l", 8192)


def fields(it: Entry | Held) -> dict[str, object]:
    return {name: getattr(it, name) for name in type(it).__slots__}
