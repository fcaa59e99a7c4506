"""Who brings which chunk: each once, and all as much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pstore.sharing.duties import BLOCK_BYTES, Duties

MIB = 1 << 20
WANTED = st.lists(st.sets(st.integers(0, 60)), min_size=1, max_size=5)


@given(WANTED, st.sets(st.integers(0, 60)))
def test_each_chunk_comes_to_all_who_want_it_and_once(wanted: list[set[int]], alone: set[int]) -> None:
    duties = Duties(wanted, [MIB] * 61, alone)
    brought = [chunk for process in range(len(wanted)) for chunk in duties.of(process) if chunk not in alone]
    assert sorted(brought) == sorted(set().union(*wanted) - alone)
    for process, chunks in enumerate(wanted):
        own = set(duties.of(process))
        assert own <= chunks, "who brings a chunk wants it"
        owed = [duties.owed(process, other) for other in range(len(wanted))]
        assert own.union(*owed) == chunks
        assert sum(map(len, owed)) + len(own) == len(chunks)
        for other, what in enumerate(owed):
            assert all(process in duties.others(chunk) for chunk in what)
            assert what <= set(duties.of(other))


def test_what_all_want_is_brought_by_all_in_equal_parts_that_lie_together() -> None:
    size = 256
    duties = Duties([range(size)] * 4, [MIB] * size)
    for process in range(4):
        mine = duties.of(process)
        assert len(mine) == size // 4
        begins = [chunk for chunk in mine if chunk - 1 not in mine]
        assert len(begins) <= size // 4 // (BLOCK_BYTES // MIB)


def test_who_has_more_of_its_own_brings_less_of_what_is_shared() -> None:
    first, second = [*range(40), *range(80, 120)], [*range(40, 60), *range(80, 120)]
    duties = Duties([first, second], [16 * MIB] * 120)
    assert abs(len(duties.of(0)) - len(duties.of(1))) <= 1
