"""What processes say to one another is understood, however it is cut, and what is none of it is refused."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from p2pstore.sharing.messages import DIGEST_BYTES, PACKET_BYTES, Heard, Kind, Message

MESSAGES = st.builds(
    Message,
    st.sampled_from(Kind),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES),
)


@given(st.lists(MESSAGES, max_size=6), st.integers(1, 3 * PACKET_BYTES))
def test_what_was_said_is_heard(messages: list[Message], cut: int) -> None:
    data = b"".join(message.pack() for message in messages)
    heard, found = Heard(), []
    for at in range(0, len(data), cut):
        found += heard.feed(data[at : at + cut])
    assert found == messages


@given(st.binary(max_size=4 * PACKET_BYTES))
def test_anything_else_is_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert all(message.kind in Kind for message in Heard().feed(data))
