"""Segments for tests of the ways to find them."""

from __future__ import annotations

from hypothesis import strategies as st

from engine.protocol.segment import BufferDescriptor, SegmentDescriptor

SEGMENT = SegmentDescriptor("127.0.0.1:7", 8, (BufferDescriptor("b", 0x1000, 64),), timestamp="today")

BUFFERS = st.builds(BufferDescriptor, st.text(min_size=1), st.integers(1, 1 << 40), st.integers(1, 1 << 40))
SEGMENTS = st.builds(
    SegmentDescriptor, st.text(), st.integers(1, 65535), st.lists(BUFFERS, max_size=4).map(tuple), st.integers(1, 2)
)
