"""The compatible class's sessions: values that are read or written in parts, over several calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from p2pstore.errors import UsageError
from p2pstore.kv.client import device_memory
from p2pstore.kv.client.compat_ranges import CompatRanges
from p2pstore.kv.client.compat_types import ReplicateConfig
from p2pstore.kv.client.compat_values import neutral_for
from p2pstore.kv.client.reading import Part


class CompatSessions(CompatRanges):
    """Sessions, under upstream's names."""

    def batch_get_session_start(self, keys: Sequence[str]) -> list[int]:
        """Ask once where values lie, for several reads of parts of them."""
        return self._coded(keys, lambda: self._sessions(self._gets).start(keys))

    def batch_get_into_multi_buffer_ranges(
        self,
        keys: Sequence[str],
        all_buffer_ptrs: Sequence[Sequence[int]],
        all_sizes: Sequence[Sequence[int]],
        all_src_offsets: Sequence[Sequence[int]],
    ) -> list[int]:
        """Read ranges of the values of a session; the bytes of each key, or a code."""
        if not len(keys) == len(all_buffer_ptrs) == len(all_sizes) == len(all_src_offsets):
            return [self._bad("keys, addresses, sizes and offsets differ in number")] * len(keys)
        memory = device_memory.Arriving(self._at, self._on_host)

        def work() -> list[int]:
            parts = _parts(memory, all_buffer_ptrs, all_sizes, all_src_offsets)
            codes: list[int] = self._sessions(self._gets).read(keys, parts)
            memory.land()
            return codes

        return self._coded(keys, work)

    def batch_get_session_end(self, keys: Sequence[str]) -> int:
        """Forget where values lie."""
        if self._gets is None:
            return -1
        self._gets.end(keys)
        return 0

    def batch_put_session_start(
        self, keys: Sequence[str], sizes: Sequence[int], config: ReplicateConfig | None = None
    ) -> list[int]:
        """Ask for memory for values that will be written in parts."""
        if len(keys) != len(sizes):
            return [self._bad("keys and sizes differ in number")] * len(keys)
        return self._coded(keys, lambda: self._sessions(self._puts).start(keys, sizes, neutral_for(config, len(keys))))

    def batch_put_from_multi_buffer_ranges(
        self,
        keys: Sequence[str],
        all_buffer_ptrs: Sequence[Sequence[int]],
        all_sizes: Sequence[Sequence[int]],
        all_dst_offsets: Sequence[Sequence[int]],
    ) -> list[int]:
        """Write ranges of the values of a session; a code for each key."""
        if not len(keys) == len(all_buffer_ptrs) == len(all_sizes) == len(all_dst_offsets):
            return [self._bad("keys, addresses, sizes and offsets differ in number")] * len(keys)
        memory = device_memory.Departing(self._at, self._on_host)
        return self._coded(
            keys,
            lambda: self._sessions(self._puts).write(keys, _parts(memory, all_buffer_ptrs, all_sizes, all_dst_offsets)),
        )

    def batch_put_session_end(self, keys: Sequence[str]) -> list[int]:
        """Let the values of a session be read."""
        return self._coded(keys, lambda: self._sessions(self._puts).end(keys))

    def batch_put_session_revoke(self, keys: Sequence[str]) -> list[int]:
        """Give back the memory of a session."""
        return self._coded(keys, lambda: self._sessions(self._puts).revoke(keys))

    # Inside

    @staticmethod
    def _sessions(sessions: Any) -> Any:
        if sessions is None:
            raise UsageError(detail="the store is not set up")
        return sessions


def _parts(
    memory: device_memory.Departing | device_memory.Arriving,
    pointers: Sequence[Sequence[int]],
    sizes: Sequence[Sequence[int]],
    offsets: Sequence[Sequence[int]],
) -> list[list[Part] | None]:
    """Ranges of each key, and the memory for them; None where the numbers differ."""
    made: list[list[Part] | None] = []
    for each in zip(pointers, sizes, offsets, strict=True):
        if not len(each[0]) == len(each[1]) == len(each[2]):
            made.append(None)
        else:
            made.append([Part(at, memory.at(pointer, size)) for pointer, size, at in zip(*each, strict=True) if size])
    return made
