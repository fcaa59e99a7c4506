"""What processes say to one another is understood, and what is none of it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.sharing.messages import DIGEST_BYTES, MAX_PACKET, Kind, Message, unpack


@given(st.sampled_from(Kind), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_what_was_packed_is_unpacked(kind: Kind, chunk: int, number: int) -> None:
    message = Message(kind, chunk, number, b"d" * DIGEST_BYTES if kind is Kind.VIEW else b"")
    packet = message.pack()
    assert unpack(packet) == message
    assert len(packet) <= MAX_PACKET


@given(st.binary(max_size=MAX_PACKET))
def test_anything_else_is_refused(packet: bytes) -> None:
    try:
        found = unpack(packet)
    except ValueError:
        return
    assert found.kind in Kind


@pytest.mark.parametrize("packet", [b"", b"\1" * 15, Message(Kind.VIEW).pack(), Message(Kind.PULSE, view=b"x").pack()])
def test_lengths_are_looked_at(packet: bytes) -> None:
    with pytest.raises(ValueError, match="packet is"):
        unpack(packet)
