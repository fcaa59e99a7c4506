"""How the compatible class puts tensors that are spread along several axes, as objects and by address."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from p2pstore.errors import UsageError
from p2pstore.kv.client import layouts
from p2pstore.kv.client.compat_shards import CompatShards
from p2pstore.kv.client.compat_tensors import Elements, elements_of, for_items
from p2pstore.kv.client.compat_types import ReplicateConfig
from p2pstore.kv.client.layouts import Manifest
from p2pstore.kv.client.tensors import (
    TENSOR,
    Shard,
    TensorHeader,
)
from p2pstore.kv.client.writing import Item


class CompatParallel(CompatShards):
    """Shards of tensors, under upstream's names.

    With one axis of tensor parallelism a put takes the shard itself; with more axes, and with a ``writer_partition``,
    it takes the whole tensor and cuts the shard out. By address it takes the whole tensor, and along tensor parallelism
    puts the shards of all ranks.
    """

    # Puts

    def put_tensor_with_parallelism(
        self,
        key: str,
        tensor: Any,
        parallelism: Any = None,
        config: ReplicateConfig | None = None,
        writer_partition: Any = None,
    ) -> int:
        """Put a shard of a tensor, or the tensor itself where neither layout is named."""
        return self._lay([key], [tensor], [parallelism], config, [writer_partition])[0]

    def batch_put_tensor_with_parallelism(
        self,
        keys: Sequence[str],
        tensors_list: Sequence[Any],
        parallelisms: Sequence[Any] | None = None,
        config: ReplicateConfig | None = None,
        writer_partitions: Sequence[Any] | None = None,
    ) -> list[int]:
        """The same of many; a code for each."""
        return self._lay(keys, tensors_list, parallelisms, config, writer_partitions)

    def upsert_tensor_with_parallelism(
        self,
        key: str,
        tensor: Any,
        parallelism: Any = None,
        config: ReplicateConfig | None = None,
        writer_partition: Any = None,
    ) -> int:
        """Put it in place of what is there."""
        return self._lay([key], [tensor], [parallelism], config, [writer_partition], replace=True)[0]

    def batch_upsert_tensor_with_parallelism(
        self,
        keys: Sequence[str],
        tensors_list: Sequence[Any],
        parallelisms: Sequence[Any] | None = None,
        config: ReplicateConfig | None = None,
        writer_partitions: Sequence[Any] | None = None,
    ) -> list[int]:
        """The same of many; a code for each."""
        return self._lay(keys, tensors_list, parallelisms, config, writer_partitions, replace=True)

    def put_tensor_with_parallelism_from(
        self,
        key: str,
        buffer_ptr: int,
        size: int,
        parallelism: Any = None,
        config: ReplicateConfig | None = None,
        writer_partition: Any = None,
    ) -> int:
        """Put what lies at an address: a header, and behind it the elements of the whole tensor."""
        return self._lay_at([key], [buffer_ptr], [size], [parallelism], config, [writer_partition])[0]

    def batch_put_tensor_with_parallelism_from(
        self,
        keys: Sequence[str],
        buffer_ptrs: Sequence[int],
        sizes: Sequence[int],
        parallelisms: Sequence[Any] | None = None,
        config: ReplicateConfig | None = None,
        writer_partitions: Sequence[Any] | None = None,
    ) -> list[int]:
        """The same of many; a code for each."""
        return self._lay_at(keys, buffer_ptrs, sizes, parallelisms, config, writer_partitions)

    def upsert_tensor_with_parallelism_from(
        self,
        key: str,
        buffer_ptr: int,
        size: int,
        parallelism: Any = None,
        config: ReplicateConfig | None = None,
        writer_partition: Any = None,
    ) -> int:
        """Put it in place of what is there."""
        return self._lay_at([key], [buffer_ptr], [size], [parallelism], config, [writer_partition], replace=True)[0]

    def batch_upsert_tensor_with_parallelism_from(
        self,
        keys: Sequence[str],
        buffer_ptrs: Sequence[int],
        sizes: Sequence[int],
        parallelisms: Sequence[Any] | None = None,
        config: ReplicateConfig | None = None,
        writer_partitions: Sequence[Any] | None = None,
    ) -> list[int]:
        """The same of many; a code for each."""
        return self._lay_at(keys, buffer_ptrs, sizes, parallelisms, config, writer_partitions, replace=True)

    # Inside

    def _lay(
        self,
        keys: Sequence[str],
        tensors: Sequence[Any],
        parallelisms: Sequence[Any] | None,
        config: ReplicateConfig | None,
        writers: Sequence[Any] | None,
        *,
        replace: bool = False,
    ) -> list[int]:
        with contextlib.ExitStack() as held:
            elements = elements_of(keys, tensors, held)
            return self._lay_all(
                keys, len(tensors), elements, parallelisms, config, writers, replace=replace, shards=True
            )

    def _lay_at(
        self,
        keys: Sequence[str],
        pointers: Sequence[int],
        sizes: Sequence[int],
        parallelisms: Sequence[Any] | None,
        config: ReplicateConfig | None,
        writers: Sequence[Any] | None,
        *,
        replace: bool = False,
    ) -> list[int]:
        elements = self._elements_at(keys, pointers, sizes)
        count = len(pointers) if len(pointers) == len(sizes) else -1
        return self._lay_all(keys, count, elements, parallelisms, config, writers, replace=replace, shards=False)

    def _lay_all(
        self,
        keys: Sequence[str],
        count: int,
        elements: Elements,
        parallelisms: Sequence[Any] | None,
        config: ReplicateConfig | None,
        writers: Sequence[Any] | None,
        *,
        replace: bool,
        shards: bool,
    ) -> list[int]:
        none = [None] * len(keys)
        layouts_given, writers_given = parallelisms or none, writers or none
        if not len(keys) == count == len(layouts_given) == len(writers_given):
            return [self._bad("keys, tensors and their layouts differ in number")] * len(keys)
        codes = []
        for place, key in enumerate(keys):
            with self._called() as failed:
                items = _items(key, *elements(place), layouts_given[place], writers_given[place], shards=shards)
                own = for_items(config, len(keys), [place])
                for item in items:  # the manifest last: it says that its shard is there
                    failed.code = failed.code or self._write([item], own, replace=replace)[0]
            codes.append(failed.code)
        return codes


def _items(
    key: str, header: TensorHeader, data: memoryview, parallelism: Any, writer: Any, *, shards: bool
) -> list[Item]:
    """What is to be put, the manifest last; ``shards``: one of a single axis is given itself. Raises ``UsageError``."""
    if writer is not None:
        if parallelism is not None:
            raise UsageError(detail="a parallelism and a writer_partition: name one of them")
        axis = layouts.writer_axis(writer)
        part = header.cut_out((axis,))
        return [
            Item(layouts.writer_key(key, axis), [memoryview(part.pack()), *part.part_of(data)]),
            _said(layouts.writers_manifest_key(key), part),
        ]
    if parallelism is None:
        return [Item(key, [memoryview(header.pack()), data])]
    axes = layouts.axes_of(parallelism)
    cut = Shard((), axes).cut
    if shards and cut is not None and len(axes) == 1:
        part = layouts.of_shard(header, axes)
        return [
            Item(layouts.key_of(key, axes), [memoryview(part.pack()), data]),
            _said(layouts.manifest_key(key), part),
        ]
    ranks = [axes]
    if cut is not None and not shards:
        places = [cut._replace(rank=rank) for rank in range(cut.parts)]
        ranks = [tuple(place if axis.kind == TENSOR else axis for axis in axes) for place in places]
    items = []
    for each in ranks:
        part = header.cut_out(each)
        items.append(Item(layouts.key_of(key, each), [memoryview(part.pack()), *part.part_of(data)]))
    return items if cut is None or not shards else [*items, _said(layouts.manifest_key(key), part)]


def _said(name: str, part: TensorHeader) -> Item:
    manifest = Manifest.of(part)
    assert manifest is not None  # noqa: S101 - it was cut out just now
    return Item(name, [memoryview(manifest.pack())])
