"""Copies of what is in pinned memory to several GPUs: to one of those that reach one another, and from there on.

So a chunk crosses the host's own bus once for each group of GPUs that are peers. By turns each of them is the first:
all have a way to the host of their own, and all pass something on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from engine.cuda.copies import Copies, FromHere
from engine.cuda.device_memory import DeviceMemory
from engine.cuda.load import Cuda
from engine.cuda.pinned import PinnedBuffer
from engine.errors import GpuFailed

Target = tuple[DeviceMemory, int]
"""Memory of a GPU, and an offset in it."""


class Part(NamedTuple):
    """``rows`` of ``row`` bytes, the first at ``start`` of a buffer and the next ``stride`` bytes after it.

    And all places to which they go: there they lie end to end.
    """

    start: int
    row: int
    targets: Sequence[Target]
    rows: int = 1
    stride: int = 0


class _Landing(NamedTuple):
    """A part's copy from the host to a GPU, and where that sends it on to."""

    part: Part
    first: Target
    others: Sequence[Target]


class SpreadCopies(Copies):
    """As ``Copies``, to any of several GPUs at once. Streams are those to a GPU, and those from one to another."""

    def __init__(self, cuda: Cuda, devices: Iterable[int]) -> None:
        """Finds out which GPUs reach one another. Raises ``GpuFailed``."""
        super().__init__(cuda)
        self.groups = cuda.peers.groups(devices)

    def spread(self, buffer: PinnedBuffer, parts: Sequence[Part], turn: int) -> None:
        """Copy parts of ``buffer``, of which there is one at least, and let the ring have it when that is done.

        ``turn`` says who is first. The buffer is no longer the caller's, even where this raises ``GpuFailed``; then
        it is used again when the copies are closed, since one may be under way.
        """
        driver = self._driver
        by_device: dict[int, list[_Landing]] = {}
        for part in parts:
            for first, others in self._shared(part.targets, turn):
                by_device.setdefault(first[0].device, []).append(_Landing(part, first, others))
        ends: list[tuple[int, int, int]] = []
        try:
            for device, landings in by_device.items():
                with driver.on(device):
                    stream = self._stream_to(device, device, [landing.first[0] for landing in landings])
                    event = driver.event()
                    ends.append((device, stream, event))
                    for (start, row, _, rows, stride), (memory, offset), _ in landings:
                        self._put(FromHere(buffer.address + start, memory, offset, row, rows, stride), stream)
                    driver.record(event, stream)
                    self._send_on(device, landings, event)
        except BaseException:
            self._strand(buffer)
            for device, _, event in ends:
                with contextlib.suppress(GpuFailed), driver.on(device):
                    driver.end_event(event)
            raise
        self._cuda.arriving.give_after_all(buffer, ends)

    def _shared(self, targets: Sequence[Target], turn: int) -> Iterable[tuple[Target, list[Target]]]:
        """In each group the target that is copied to from the host, and the others."""
        for group in self.groups:
            mine = [target for target in targets if target[0].device in group]
            if mine:
                first = mine.pop(turn % len(mine))
                yield first, mine

    def _send_on(self, device: int, landings: Sequence[_Landing], event: int) -> None:
        """Put copies to the other targets behind ``event``, after which all is on ``device``. Inside ``on`` of it."""
        streams: dict[int, int] = {}
        for part, (source, at), others in landings:
            for memory, offset in others:
                other = memory.device
                stream = self._stream_to(device, other, [memory], onward=True)
                if other not in streams:
                    streams[other] = stream
                    self._driver.wait(stream, event)
                length = part.row * part.rows
                self._driver.to_peer(memory.address + offset, source.address + at, length, stream, other)
