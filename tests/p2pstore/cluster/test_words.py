"""A word comes off a line as it was put on, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.cluster.words import MAX_NUMBER, MAX_WORD_BYTES, from_line, to_line
from p2pstore.swarm.events import Declined, Done, Opened, Word

NUMBERS = st.integers(0, MAX_NUMBER - 1)
WORDS: st.SearchStrategy[Word] = (
    st.builds(Opened, st.just(""), NUMBERS)
    | st.builds(Declined, st.just(""), NUMBERS, NUMBERS, st.booleans())
    | st.builds(Done, st.just(""), NUMBERS, NUMBERS, st.booleans())
)


@given(WORDS)
def test_there_and_back(word: Word) -> None:
    line = to_line(word)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert len(line) <= MAX_WORD_BYTES
    assert from_line(line) == word


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"under_way":-1}',
        b'{"under_way":true}',
        b'{"under_way":1e400}',
        b'{"under_way":1,"done":"1"}',
        b'{"under_way":1,"declined":99999999999999999999}',
        b"\xff",
    ],
)
def test_garbage(line: bytes) -> None:
    with pytest.raises(ValueError):
        from_line(line)
