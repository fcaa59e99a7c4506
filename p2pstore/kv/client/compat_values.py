"""The compatible class's calls that move values: bytes, and memory by address."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engine.errors import MooncakeError
from engine.memory.copying import unfilled, view_of
from engine.memory.lent import byte_view
from engine.rpc import messages
from p2pstore.errors import UsageError
from p2pstore.kv.client import device_memory
from p2pstore.kv.client.compat_base import BAD, CompatBase, code_of
from p2pstore.kv.client.compat_types import BufferHandle, ReplicateConfig
from p2pstore.kv.client.reading import Part, whole
from p2pstore.kv.client.writing import Item, Outcome

if TYPE_CHECKING:
    from typing_extensions import Buffer as Exporter


class CompatValues(CompatBase):
    """Values in and out, under upstream's names."""

    # Bytes

    def put(self, key: str, value: Exporter, config: ReplicateConfig | None = None) -> int:
        """Put a value. 0, also where the key has one already, which stays."""
        return self._put_parts(key, [value], config)

    def upsert(self, key: str, value: Exporter, config: ReplicateConfig | None = None) -> int:
        """Put a value in place of the one that is there."""
        return self._put_parts(key, [value], config, replace=True)

    def put_parts(self, key: str, *parts: Exporter, config: ReplicateConfig | None = None) -> int:
        """Put several pieces of memory as one value."""
        return self._put_parts(key, parts, config)

    def upsert_parts(self, key: str, *parts: Exporter, config: ReplicateConfig | None = None) -> int:
        """The same in place of the value that is there."""
        return self._put_parts(key, parts, config, replace=True)

    def put_batch(self, keys: Sequence[str], values: Sequence[Exporter], config: ReplicateConfig | None = None) -> int:
        """Put values. 0, or the first code that is not; none is put where one of them is empty or too large."""
        return self._put_batch(keys, values, config, replace=False)

    def upsert_batch(
        self, keys: Sequence[str], values: Sequence[Exporter], config: ReplicateConfig | None = None
    ) -> int:
        """The same in place of what is there."""
        return self._put_batch(keys, values, config, replace=True)

    def get(self, key: str) -> bytes:
        """The value; no bytes where there is none, or none that can be read."""
        return self.get_batch([key])[0]

    def get_batch(self, keys: Sequence[str]) -> list[bytes]:
        """The values; no bytes for those that there are not."""
        made: dict[int, bytes] = {}

        def room(place: int, size: int) -> list[Part]:
            made[place], view = unfilled(size)
            return whole(view)

        found = self._read(keys, room)
        return [made[place] if count > 0 else b"" for place, count in enumerate(found)]

    def get_buffer(self, key: str) -> BufferHandle | None:
        """The value, as memory; None where there is none."""
        return self.batch_get_buffer([key])[0]

    def batch_get_buffer(self, keys: Sequence[str]) -> list[BufferHandle | None]:
        """The values, as memory; None for those that there are not."""
        made: dict[int, BufferHandle] = {}

        def room(place: int, size: int) -> list[Part]:
            made[place] = BufferHandle(size)
            return whole(memoryview(made[place]))

        found = self._read(keys, room)
        return [made[place] if count > 0 else None for place, count in enumerate(found)]

    # Memory by address

    def register_buffer(self, buffer_ptr: int, size: int) -> int:
        """Say that memory will be used. It need not be, over TCP; what reaches beyond it is refused then."""
        if not buffer_ptr or size <= 0:
            return BAD
        self._registered[buffer_ptr] = view_of(buffer_ptr, size)
        driver = device_memory.driver()
        if driver is None or not driver.owns(buffer_ptr):
            self._on_host.add(buffer_ptr, size)
        return 0

    def unregister_buffer(self, buffer_ptr: int) -> int:
        """Say that memory is used no more."""
        self._on_host.discard(buffer_ptr)
        return 0 if self._registered.pop(buffer_ptr, None) is not None else BAD

    def put_from(self, key: str, buffer_ptr: int, size: int, config: ReplicateConfig | None = None) -> int:
        """Put ``size`` bytes at an address."""
        return self.batch_put_from([key], [buffer_ptr], [size], config)[0]

    def upsert_from(self, key: str, buffer_ptr: int, size: int, config: ReplicateConfig | None = None) -> int:
        """The same in place of the value that is there."""
        return self.batch_upsert_from([key], [buffer_ptr], [size], config)[0]

    def put_from_with_metadata(
        self,
        key: str,
        buffer_ptr: int,
        metadata_buffer_ptr: int,
        size: int,
        metadata_size: int,
        config: ReplicateConfig | None = None,
    ) -> int:
        """Put what lies at two addresses as one value, the metadata first."""
        pointers, sizes = [[metadata_buffer_ptr, buffer_ptr]], [[metadata_size, size]]
        return self.batch_put_from_multi_buffers([key], pointers, sizes, config)[0]

    def batch_put_from(
        self,
        keys: Sequence[str],
        buffer_ptrs: Sequence[int],
        sizes: Sequence[int],
        config: ReplicateConfig | None = None,
    ) -> list[int]:
        """Put what lies at addresses; a code for each."""
        pointers, lengths = [[each] for each in buffer_ptrs], [[each] for each in sizes]
        return self.batch_put_from_multi_buffers(keys, pointers, lengths, config)

    def batch_upsert_from(
        self,
        keys: Sequence[str],
        buffer_ptrs: Sequence[int],
        sizes: Sequence[int],
        config: ReplicateConfig | None = None,
    ) -> list[int]:
        """The same in place of what is there."""
        pointers, lengths = [[each] for each in buffer_ptrs], [[each] for each in sizes]
        return self._put_from(keys, pointers, lengths, config, replace=True)

    def batch_put_from_multi_buffers(
        self,
        keys: Sequence[str],
        all_buffer_ptrs: Sequence[Sequence[int]],
        all_sizes: Sequence[Sequence[int]],
        config: ReplicateConfig | None = None,
    ) -> list[int]:
        """Put values, each of which lies at several addresses; a code for each."""
        return self._put_from(keys, all_buffer_ptrs, all_sizes, config, replace=False)

    def get_into(self, key: str, buffer_ptr: int, size: int) -> int:
        """Bring a value to an address; its size, or a code."""
        memory = device_memory.Arriving(self._at, self._on_host)

        def room(_: int, length: int) -> list[Part] | MooncakeError:
            if length > size:
                return UsageError(detail=f"the value of {key!r} has {length} bytes, and its memory {size}")
            return whole(memory.at(buffer_ptr, length))

        return self._read([key], room, memory)[0]

    def batch_get_into(self, keys: Sequence[str], buffer_ptrs: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """Bring values to addresses; the size of each, or a code."""
        return self.batch_get_into_multi_buffers(keys, [[each] for each in buffer_ptrs], [[each] for each in sizes])

    def batch_get_into_multi_buffers(
        self,
        keys: Sequence[str],
        all_buffer_ptrs: Sequence[Sequence[int]],
        all_sizes: Sequence[Sequence[int]],
        prefer_alloc_in_same_node: bool = False,  # noqa: ARG002, FBT001 - upstream's; what is near is read first anyway
    ) -> list[int]:
        """Bring values to several addresses each; the size of each, or a code."""
        if not len(keys) == len(all_buffer_ptrs) == len(all_sizes):
            return [self._bad("keys, addresses and sizes differ in number")] * len(keys)
        memory = device_memory.Arriving(self._at, self._on_host)

        def room(place: int, size: int) -> list[Part] | MooncakeError:
            parts: list[Part] = []
            at = 0
            for pointer, length in zip(all_buffer_ptrs[place], all_sizes[place], strict=True):
                count = min(length, size - at)
                if count > 0:
                    parts.append(Part(at, memory.at(pointer, count)))
                    at += count
            if at < size:
                detail = f"the value of {keys[place]!r} has {size} bytes, and its memory {sum(all_sizes[place])}"
                return UsageError(detail=detail)
            return parts

        if any(len(one) != len(other) for one, other in zip(all_buffer_ptrs, all_sizes, strict=True)):
            return [self._bad("addresses and sizes of a key differ in number")] * len(keys)
        return self._read(keys, room, memory)

    # Inside

    def _read(
        self,
        keys: Sequence[str],
        room: Callable[[int, int], list[Part] | MooncakeError],
        memory: device_memory.Arriving | None = None,
    ) -> list[int]:
        """The size of each value, or a code. ``memory`` is where ``room`` has it from, if that may be a device's."""

        def work() -> list[int]:
            found: list[int] = []
            for each in self._open().reader.read(keys, room):
                if isinstance(each, MooncakeError):
                    self._say(each)
                    found.append(code_of(each))
                else:
                    found.append(each)
            if memory is not None:
                memory.land()
            return found

        return self._coded(keys, work)

    def _write(self, items: Sequence[Item], config: ReplicateConfig | None, *, replace: bool) -> list[int]:
        def work() -> list[int]:
            neutral = neutral_for(config, len(items))
            return [self._code(each) for each in self._open().writer.write(items, neutral, replace=replace)]

        return self._coded(items, work)

    def _code(self, outcome: Outcome) -> int:
        if not isinstance(outcome, MooncakeError):
            return 0
        self._say(outcome)
        return code_of(outcome)

    def _put_parts(
        self, key: str, parts: Sequence[Exporter], config: ReplicateConfig | None, *, replace: bool = False
    ) -> int:
        with contextlib.ExitStack() as held:
            views = [held.enter_context(byte_view(each, f"the value of {key!r}")) for each in parts]
            if self._too_large(sum(map(len, views))):
                return BAD
            return self._write([Item(key, views)], config, replace=replace)[0]

    def _put_batch(
        self, keys: Sequence[str], values: Sequence[Exporter], config: ReplicateConfig | None, *, replace: bool
    ) -> int:
        if len(keys) != len(values):
            return self._bad("keys and values differ in number")
        with contextlib.ExitStack() as held:
            views = [held.enter_context(byte_view(each, "a value")) for each in values]
            if not all(map(len, views)):
                return self._bad("one of the values is empty, and the pool keeps no empty values")
            if any(self._too_large(len(view)) for view in views):
                return BAD
            items = [Item(key, [view]) for key, view in zip(keys, views, strict=True)]
            return next((code for code in self._write(items, config, replace=replace) if code), 0)

    def _too_large(self, size: int) -> bool:
        if self._client is None or size <= self._local_buffer:
            return False
        self._bad(f"a value of {size} bytes, and a local buffer of {self._local_buffer}")
        return True

    def _put_from(
        self,
        keys: Sequence[str],
        pointers: Sequence[Sequence[int]],
        sizes: Sequence[Sequence[int]],
        config: ReplicateConfig | None,
        *,
        replace: bool,
    ) -> list[int]:
        if not len(keys) == len(pointers) == len(sizes):
            return [self._bad("keys, addresses and sizes differ in number")] * len(keys)
        if any(len(one) != len(other) for one, other in zip(pointers, sizes, strict=True)):
            return [self._bad("addresses and sizes of a key differ in number")] * len(keys)
        memory = device_memory.Departing(self._at, self._on_host)
        try:
            items = [
                Item(key, [memory.at(pointer, size) for pointer, size in zip(*each, strict=True) if size])
                for key, *each in zip(keys, pointers, sizes, strict=True)
            ]
        except UsageError as error:
            self._say(error)
            return [BAD] * len(keys)
        return self._write(items, config, replace=replace)


def neutral_for(config: ReplicateConfig | None, keys: int) -> messages.ReplicateConfig:
    """A configuration as calls for so many keys take it. Raises ``UsageError``."""
    neutral = (config or ReplicateConfig()).neutral()
    if neutral.group_ids is not None and len(neutral.group_ids) != keys:
        raise UsageError(detail=f"{len(neutral.group_ids)} groups for {keys} keys")
    return neutral
