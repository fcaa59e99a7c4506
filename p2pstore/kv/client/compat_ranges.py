"""The compatible class's reads of ranges: several of each of several values, to places in registered memory."""

from __future__ import annotations

from collections.abc import Sequence

from p2pstore.kv.client import device_memory
from p2pstore.kv.client.compat_base import BAD
from p2pstore.kv.client.compat_values import CompatValues
from p2pstore.kv.client.reading import Part


class CompatRanges(CompatValues):
    """Ranges of values, under upstream's names."""

    def get_into_ranges(
        self,
        buffer_ptrs: Sequence[int],
        all_keys: Sequence[Sequence[str]],
        all_dst_offsets: Sequence[Sequence[Sequence[int]]],
        all_src_offsets: Sequence[Sequence[Sequence[int]]],
        all_sizes: Sequence[Sequence[Sequence[int]]],
    ) -> list[list[list[int]]]:
        """Bring ranges of values to offsets of registered memory: by buffer, key and range the bytes, or a code."""
        results: list[list[list[int]]] = []
        for number, pointer in enumerate(buffer_ptrs):
            keys = all_keys[number] if number < len(all_keys) else []
            given = (all_dst_offsets, all_src_offsets, all_sizes)
            ranges = [each[number] if number < len(each) else [] for each in given]
            if any(len(each) != len(keys) for each in ranges):
                bad = self._bad("keys, offsets and sizes differ in number")
                results.append([[bad] for _ in keys])
            else:
                results.append(self._ranges(pointer, keys, list(zip(*ranges, strict=True))))
        return results

    def _ranges(
        self, pointer: int, keys: Sequence[str], plans: Sequence[tuple[Sequence[int], Sequence[int], Sequence[int]]]
    ) -> list[list[int]]:
        """Of each key, destinations, sources and sizes: the bytes of each range, or a code."""
        capacity = self._room_at(pointer)
        uneven = {place for place, plan in enumerate(plans) if len({*map(len, plan)}) != 1}
        even = [place for place in range(len(keys)) if place not in uneven]
        outside: set[tuple[int, int]] = set()
        memory = device_memory.Arriving(self._at, self._on_host)

        def room(number: int, size: int) -> list[Part]:
            parts: list[Part] = []
            place = even[number]
            for which, (to, start, length) in enumerate(zip(*plans[place], strict=True)):
                if min(to, start, length) < 0 or not length or start + length > size or to + length > capacity:
                    self._bad(
                        f"{length} bytes at {start} of {keys[place]!r}, which has {size}, to {to} of registered memory "
                        f"of {capacity}"
                    )
                    outside.add((place, which))
                else:
                    parts.append(Part(start, memory.at(pointer + to, length)))
            return parts

        found = dict(zip(even, self._read([keys[place] for place in even], room, memory), strict=True))
        if uneven:
            self._bad("offsets and sizes of a key differ in number")
        results: list[list[int]] = []
        for place, plan in enumerate(plans):
            code = found.get(place, BAD)
            lengths = plan[2] if place in found else [0] * max(map(len, plan))
            results.append(
                [
                    code if code < 0 else BAD if (place, which) in outside else length
                    for which, length in enumerate(lengths)
                ]
            )
        return results
