"""How the compatible class reads tensors that are spread along several axes: one shard, another part, or all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from p2pstore.errors import UsageError
from p2pstore.kv.client import device_memory, layouts
from p2pstore.kv.client.compat_files import CompatFiles
from p2pstore.kv.client.compat_tensors import Tensor
from p2pstore.kv.client.layouts import Manifest, ReadTarget
from p2pstore.kv.client.tensors import (
    HEADER_BYTES,
    SIZES,
    TENSOR,
    TYPES,
    Axis,
    Shard,
    TensorHeader,
    as_torch,
    described,
)
from p2pstore.kv.errors import KeyNotFound

Room = Callable[[int], memoryview]
"""Memory for so many bytes."""


class CompatShards(CompatFiles):
    """Reads of shards, under upstream's names."""

    def get_tensor_with_parallelism(self, key: str, target: ReadTarget | None = None) -> Any:
        """A tensor of PyTorch: what is stored under the key, a part, or all of it; None where it is not there."""
        with self._called():
            found = self._found(key, target, lambda size: memoryview(bytearray(size)))
            return None if found is None else as_torch(*found, in_place=True)
        return None

    def batch_get_tensor_with_parallelism(
        self, keys: Sequence[str], targets: Sequence[ReadTarget | None] | None = None
    ) -> list[Any]:
        """The same of many."""
        if targets is not None and len(targets) != len(keys):
            self._bad("keys and targets differ in number")
            return [None] * len(keys)
        several = [None] * len(keys) if targets is None else targets
        return [self.get_tensor_with_parallelism(*each) for each in zip(keys, several, strict=True)]

    def get_tensor_with_parallelism_into(
        self, key: str, buffer_ptr: int, size: int, target: ReadTarget | None = None
    ) -> Any:
        """Bring it, its header first, to an address in the host's memory: a tensor in that memory, or None."""
        if device_memory.Arriving(self._at, self._on_host).is_devices(buffer_ptr):
            self._bad("get_tensor_with_parallelism_into fills the host's memory; .to(device) takes it to a GPU")
            return None
        with self._called():
            place = self._at(buffer_ptr, size)

            made: list[memoryview] = []

            def room(needed: int) -> memoryview:
                if HEADER_BYTES + needed > size:
                    raise UsageError(detail=f"the tensor needs {HEADER_BYTES + needed} bytes, and there are {size}")
                made.append(place[HEADER_BYTES : HEADER_BYTES + needed])
                return made[-1]

            found = self._found(key, target, room)
            if found is None:
                return None
            header, data = found
            if not made:  # it was one value, and is not there yet
                room(header.size)[:] = data
            place[:HEADER_BYTES] = header.pack()
            return as_torch(header, made[-1], in_place=True)
        return None

    def batch_get_tensor_with_parallelism_into(
        self,
        keys: Sequence[str],
        buffer_ptrs: Sequence[int],
        sizes: Sequence[int],
        targets: Sequence[ReadTarget | None] | None = None,
    ) -> list[Any]:
        """The same of many."""
        several = [None] * len(keys) if targets is None else targets
        if not len(keys) == len(buffer_ptrs) == len(sizes) == len(several):
            self._bad("keys, addresses, sizes and targets differ in number")
            return [None] * len(keys)
        asked = zip(keys, buffer_ptrs, sizes, several, strict=True)
        return [self.get_tensor_with_parallelism_into(*each) for each in asked]

    # Inside

    def _found(self, key: str, target: ReadTarget | None, room: Room) -> Tensor | None:
        """What a target means. Raises ``UsageError``, ``KeyNotFound``."""
        mode = target.mode if target is not None else layouts.MODES[0]
        if target is None or target.parallelism is None:
            if mode == "as_stored":
                return self._stored(key)
            if mode == "full":
                return self._of_writers(key, room) or self._stored(key)
        assert target is not None  # noqa: S101 - for the type checker
        axes = layouts.axes_of(target.parallelism)
        if mode == "shard":
            return self._as_shard(key, axes, room)
        if mode != "full":
            raise UsageError(detail="as_stored takes no parallelism; ask for mode 'shard' with it, or without it")
        return self._whole(key, axes, room, part=None)

    def _stored(self, key: str) -> Tensor | None:
        value = self.get_buffer(key)
        return None if value is None else described(key, memoryview(value))

    def _as_shard(self, key: str, axes: tuple[Axis, ...], room: Room) -> Tensor | None:
        alone = len(axes) == 1 and axes[0].kind == TENSOR
        for name in (layouts.key_of(key, axes), *([layouts.writer_key(key, axes[0])] if alone else [])):
            found = self._stored(name)
            if found is not None and _matches(found[0], axes):
                return found
        cut = Shard((), axes).cut
        if cut is None:
            raise KeyNotFound(key=layouts.key_of(key, axes))
        return self._whole(key, axes, room, part=cut)

    def _of_writers(self, key: str, room: Room) -> Tensor | None:
        manifest = self._manifest(layouts.writers_manifest_key(key))
        if manifest is None:
            return None
        axes = [Axis(TENSOR, rank, manifest.parts, manifest.split) for rank in range(manifest.parts)]
        names = [layouts.writer_key(key, axis) for axis in axes]
        return self._put_together(manifest, names, [(axis,) for axis in axes], room, None, ())

    def _whole(self, key: str, axes: tuple[Axis, ...], room: Room, part: Axis | None) -> Tensor | None:
        """The whole tensor out of its shards, or the part of it that is wanted. Raises ``UsageError``."""
        cut = Shard((), axes).cut
        if cut is None:
            raise UsageError(detail="a tensor is joined along tp, and its layout has no such axis")
        manifest = self._manifest(layouts.manifest_key(key))
        if manifest is None or manifest.split != cut.split:
            manifest = self._from_first(key, axes, cut)
        places = [cut._replace(rank=rank, parts=manifest.parts) for rank in range(manifest.parts)]
        each = [tuple(place if axis.kind == TENSOR else axis for axis in axes) for place in places]
        return self._put_together(manifest, [layouts.key_of(key, one) for one in each], each, room, part, axes)

    def _manifest(self, name: str) -> Manifest | None:
        value = self.get_buffer(name)
        return None if value is None else Manifest.read(memoryview(value))

    def _from_first(self, key: str, axes: tuple[Axis, ...], cut: Axis) -> Manifest:
        """What the shards are parts of, as the first one says. Raises ``KeyNotFound``, ``UsageError``."""
        first = tuple(cut._replace(rank=0) if axis.kind == TENSOR else axis for axis in axes)
        name = layouts.key_of(key, first)
        found = self._stored(name)
        if found is None:
            raise KeyNotFound(key=name)
        manifest = Manifest.of(found[0])
        if manifest is None:
            raise UsageError(detail=f"{name!r} is no part of a tensor that is cut along tp")
        if manifest.split != cut.split:
            detail = f"the tensor is split along number {manifest.split}, and not along number {cut.split}"
            raise UsageError(detail=detail)
        return manifest

    def _put_together(
        self,
        manifest: Manifest,
        names: Sequence[str],
        places: Sequence[tuple[Axis, ...]],
        room: Room,
        part: Axis | None,
        axes: tuple[Axis, ...],
    ) -> Tensor:
        """Raises ``KeyNotFound``, ``UsageError``."""
        whole = TensorHeader(manifest.kind, manifest.shape)
        header = whole if part is None else whole.cut_out(axes)
        total = manifest.shape[manifest.split]
        wanted = (0, total) if part is None else layouts.extent(total, part.rank, part.parts)
        layouts.extent(total, 0, manifest.parts)
        sources = []
        for name, place, value in zip(names, places, self.batch_get_buffer(names), strict=True):
            if value is None:
                raise KeyNotFound(key=name)
            shard, data = described(name, memoryview(value))
            expected = whole.cut_out(place)
            if (shard.kind, shard.shape) != (expected.kind, expected.shape) or not _matches(shard, place):
                raise UsageError(detail=f"{name!r} is no part of that tensor: it is {shard}, and not {expected}")
            sources.append(data)
        data = room(header.size)
        item = SIZES[TYPES.index(manifest.kind)]
        for which, source, to, length in layouts.copies(manifest.shape, manifest.split, item, manifest.parts, wanted):
            data[to : to + length] = sources[which][source : source + length]
        return header, data


def _matches(header: TensorHeader, axes: Sequence[Axis]) -> bool:
    return header.shard is not None and layouts.canonical(header.shard.axes) == layouts.canonical(axes)
