"""The compatible class's tensors: whole ones and equal parts for tensor parallelism, as objects and by address."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from engine.memory.lent import byte_view
from engine.rpc.codes import Code
from p2pstore.errors import UsageError
from p2pstore.kv.client import device_memory
from p2pstore.kv.client.compat_sessions import CompatSessions
from p2pstore.kv.client.compat_types import ReplicateConfig
from p2pstore.kv.client.tensors import TensorHeader, as_torch, described
from p2pstore.kv.client.writing import Item

Tensor = tuple[TensorHeader, memoryview]
"""What it is, and its elements."""

Elements = Callable[[int], Tensor]
"""The tensor at a place of those that a call names. Raises ``UsageError`` for what is none."""


class CompatTensors(CompatSessions):
    """Tensors, under upstream's names."""

    # Whole ones

    def put_tensor(self, key: str, tensor: Any) -> int:
        """Put a tensor with its type and shape."""
        return self.pub_tensor(key, tensor)

    def pub_tensor(self, key: str, tensor: Any, config: ReplicateConfig | None = None) -> int:
        """The same, with a configuration."""
        return self._put_tensors([key], [tensor], config)[0]

    def batch_put_tensor(self, keys: Sequence[str], tensors_list: Sequence[Any]) -> list[int]:
        """Put tensors; a code for each."""
        return self.batch_pub_tensor(keys, tensors_list)

    def batch_pub_tensor(
        self, keys: Sequence[str], tensors_list: Sequence[Any], config: ReplicateConfig | None = None
    ) -> list[int]:
        """The same, with a configuration."""
        return self._put_tensors(keys, tensors_list, config)

    def upsert_tensor(self, key: str, tensor: Any, config: ReplicateConfig | None = None) -> int:
        """Put a tensor in place of what is there."""
        return self._put_tensors([key], [tensor], config, replace=True)[0]

    def upsert_pub_tensor(self, key: str, tensor: Any, config: ReplicateConfig | None = None) -> int:
        """The same, with a configuration."""
        return self.upsert_tensor(key, tensor, config)

    def batch_upsert_tensor(self, keys: Sequence[str], tensors_list: Sequence[Any]) -> list[int]:
        """The same of many; a code for each."""
        return self.batch_upsert_pub_tensor(keys, tensors_list)

    def batch_upsert_pub_tensor(
        self, keys: Sequence[str], tensors_list: Sequence[Any], config: ReplicateConfig | None = None
    ) -> list[int]:
        """The same, with a configuration."""
        return self._put_tensors(keys, tensors_list, config, replace=True)

    def get_tensor(self, key: str) -> Any:
        """A tensor of PyTorch; None where there is none. Of a shard its own elements."""
        return self.batch_get_tensor([key])[0]

    def batch_get_tensor(self, keys: Sequence[str]) -> list[Any]:
        """Tensors; None for those that there are not."""
        return [self._tensor(key, value) for key, value in zip(keys, self.get_batch(keys), strict=True)]

    # Shards

    def put_tensor_with_tp(self, key: str, tensor: Any, tp_rank: int = 0, tp_size: int = 1, split_dim: int = 0) -> int:
        """Put a tensor as ``tp_size`` equal parts along a dimension, each under a key of its own."""
        return self.pub_tensor_with_tp(key, tensor, None, tp_rank, tp_size, split_dim)

    def pub_tensor_with_tp(
        self,
        key: str,
        tensor: Any,
        config: ReplicateConfig | None = None,
        tp_rank: int = 0,
        tp_size: int = 1,
        split_dim: int = 0,
    ) -> int:
        """The same, with a configuration."""
        return self.batch_pub_tensor_with_tp([key], [tensor], config, tp_rank, tp_size, split_dim)[0]

    def batch_put_tensor_with_tp(
        self, base_keys: Sequence[str], tensors_list: Sequence[Any], tp_rank: int = 0, tp_size: int = 1,
        split_dim: int = 0,
    ) -> list[int]:  # fmt: skip
        """The same of many; a code for each."""
        return self.batch_pub_tensor_with_tp(base_keys, tensors_list, None, tp_rank, tp_size, split_dim)

    def batch_pub_tensor_with_tp(
        self,
        base_keys: Sequence[str],
        tensors_list: Sequence[Any],
        config: ReplicateConfig | None = None,
        tp_rank: int = 0,  # noqa: ARG002 - upstream's, which puts all parts, too
        tp_size: int = 1,
        split_dim: int = 0,
    ) -> list[int]:
        """The same, with a configuration."""
        return self._put_tensors(base_keys, tensors_list, config, parts=tp_size, split=split_dim)

    def get_tensor_with_tp(self, key: str, tp_rank: int = 0, tp_size: int = 1, split_dim: int = 0) -> Any:  # noqa: ARG002 - upstream's
        """One of the parts; None where there is none."""
        return self.batch_get_tensor_with_tp([key], tp_rank, tp_size)[0]

    def batch_get_tensor_with_tp(self, base_keys: Sequence[str], tp_rank: int = 0, tp_size: int = 1) -> list[Any]:
        """One of the parts of each."""
        return self.batch_get_tensor(_names(base_keys, tp_rank, tp_size))

    # By address: the header, and behind it the elements

    def put_tensor_from(self, key: str, buffer_ptr: int, size: int) -> int:
        """Put what lies at an address."""
        return self.batch_put_tensor_from([key], [buffer_ptr], [size])[0]

    def batch_put_tensor_from(self, keys: Sequence[str], buffer_ptrs: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """The same of many; a code for each."""
        return self._put_at(keys, buffer_ptrs, sizes)

    def upsert_tensor_from(self, key: str, buffer_ptr: int, size: int) -> int:
        """Put what lies at an address in place of what is there."""
        return self.batch_upsert_tensor_from([key], [buffer_ptr], [size])[0]

    def batch_upsert_tensor_from(
        self, keys: Sequence[str], buffer_ptrs: Sequence[int], sizes: Sequence[int]
    ) -> list[int]:
        """The same of many; a code for each."""
        return self._put_at(keys, buffer_ptrs, sizes, replace=True)

    def put_tensor_with_tp_from(
        self, key: str, buffer_ptr: int, size: int, tp_rank: int = 0, tp_size: int = 1, split_dim: int = 0
    ) -> int:
        """Put the whole tensor at an address as equal parts."""
        return self.batch_put_tensor_with_tp_from([key], [buffer_ptr], [size], tp_rank, tp_size, split_dim)[0]

    def batch_put_tensor_with_tp_from(
        self,
        base_keys: Sequence[str],
        buffer_ptrs: Sequence[int],
        sizes: Sequence[int],
        tp_rank: int = 0,  # noqa: ARG002 - upstream's
        tp_size: int = 1,
        split_dim: int = 0,
    ) -> list[int]:
        """The same of many; a code for each."""
        return self._put_at(base_keys, buffer_ptrs, sizes, parts=tp_size, split=split_dim)

    def get_tensor_into(self, key: str, buffer_ptr: int, size: int) -> Any:
        """Bring a tensor, its header first, to an address: a tensor of PyTorch in that memory, or None.

        The memory is the host's: the header is read there.
        """
        return self.batch_get_tensor_into([key], [buffer_ptr], [size])[0]

    def batch_get_tensor_into(self, keys: Sequence[str], buffer_ptrs: Sequence[int], sizes: Sequence[int]) -> list[Any]:
        """The same of many."""
        if any(map(device_memory.Arriving(self._at, self._on_host).is_devices, buffer_ptrs)):
            self._bad("get_tensor_into fills the host's memory; get_tensor_into_cuda fills tensors on a GPU")
            return [None] * len(keys)
        found: list[Any] = []
        counts = self.batch_get_into(keys, buffer_ptrs, sizes)
        if not len(keys) == len(buffer_ptrs) == len(sizes):
            return [None] * len(keys)
        for key, pointer, count in zip(keys, buffer_ptrs, counts, strict=True):
            found.append(self._tensor(key, self._at(pointer, count), in_place=True) if count > 0 else None)
        return found

    def get_tensor_with_tp_into(
        self, key: str, buffer_ptr: int, size: int, tp_rank: int = 0, tp_size: int = 1, split_dim: int = 0  # noqa: ARG002 - upstream's
    ) -> Any:  # fmt: skip
        """One of the parts of a tensor, likewise."""
        return self.batch_get_tensor_with_tp_into([key], [buffer_ptr], [size], tp_rank, tp_size)[0]

    def batch_get_tensor_with_tp_into(
        self, base_keys: Sequence[str], buffer_ptrs: Sequence[int], sizes: Sequence[int], tp_rank: int = 0,
        tp_size: int = 1,
    ) -> list[Any]:  # fmt: skip
        """The same of many."""
        return self.batch_get_tensor_into(_names(base_keys, tp_rank, tp_size), buffer_ptrs, sizes)

    # On GPUs

    def get_tensor_into_cuda(self, key: str, tensor: Any) -> int:
        """Bring a tensor's elements into one of the same type and shape on a GPU; their bytes, or a code."""
        return self.batch_get_tensor_into_cuda([key], [tensor])[0]

    def batch_get_tensor_into_cuda(self, keys: Sequence[str], tensors_list: Sequence[Any]) -> list[int]:
        """The same of many."""
        if len(keys) != len(tensors_list):
            return [self._bad("keys and tensors differ in number")] * len(keys)
        return [self._into_cuda(key, tensor) for key, tensor in zip(keys, tensors_list, strict=True)]

    # Inside

    def _tensor(self, key: str, value: bytes | memoryview, *, in_place: bool = False) -> Any:
        if not value:
            return None
        with self._called():
            return as_torch(*described(key, value), in_place=in_place)
        return None

    def _put_tensors(
        self,
        keys: Sequence[str],
        tensors: Sequence[Any],
        config: ReplicateConfig | None,
        *,
        replace: bool = False,
        parts: int = 1,
        split: int = 0,
    ) -> list[int]:
        if len(keys) != len(tensors):
            return [self._bad("keys and tensors differ in number")] * len(keys)
        with contextlib.ExitStack() as held:
            elements = elements_of(keys, tensors, held)
            return self._put_all(keys, elements, config, replace=replace, parts=parts, split=split)

    def _put_at(
        self,
        keys: Sequence[str],
        pointers: Sequence[int],
        sizes: Sequence[int],
        *,
        replace: bool = False,
        parts: int = 1,
        split: int = 0,
    ) -> list[int]:
        if not len(keys) == len(pointers) == len(sizes):
            return [self._bad("keys, addresses and sizes differ in number")] * len(keys)
        elements = self._elements_at(keys, pointers, sizes)
        return self._put_all(keys, elements, None, replace=replace, parts=parts, split=split)

    def _elements_at(self, keys: Sequence[str], pointers: Sequence[int], sizes: Sequence[int]) -> Elements:
        """Of what lies at addresses: a header, and the elements behind it."""
        memory = device_memory.Departing(self._at, self._on_host)
        return lambda place: described(keys[place], memory.at(pointers[place], sizes[place]))

    def _put_all(
        self,
        keys: Sequence[str],
        elements: Elements,
        config: ReplicateConfig | None,
        *,
        replace: bool,
        parts: int,
        split: int,
    ) -> list[int]:
        """Put tensors, or their parts, in one call: a code for each, 0 where all of its parts are there."""
        codes = [0] * len(keys)
        items: list[Item] = []
        owners: list[int] = []
        for place, key in enumerate(keys):
            with self._called() as failed:
                header, data = elements(place)
                made = _items(key, header, data, parts, split)
                items += made
                owners += [place] * len(made)
            codes[place] = failed.code
        if items:
            several = for_items(config, len(keys), owners)
            for place, code in zip(owners, self._write(items, several, replace=replace), strict=True):
                codes[place] = codes[place] or code
        return codes

    def _into_cuda(self, key: str, tensor: Any) -> int:
        with self._called() as failed:
            if not getattr(tensor, "is_cuda", False):
                detail = "a tensor on a GPU is needed (device='cuda'); get_tensor and get_tensor_into fill the host's"
                raise UsageError(detail=detail)
            value = self.get_buffer(key)
            if value is None:
                return int(Code.NOT_FOUND)
            header, data = described(key, memoryview(value))
            wanted = TensorHeader.of(tensor)
            if (header.kind, header.shape) != (wanted.kind, wanted.shape):
                detail = (
                    f"the tensor under {key!r} is {header.kind} {header.shape}, and not {wanted.kind} {wanted.shape}"
                )
                raise UsageError(detail=detail)
            tensor.copy_(as_torch(header, data, in_place=True))
            return header.size
        return failed.code


def _items(key: str, header: TensorHeader, data: memoryview, parts: int, split: int) -> list[Item]:
    """Raises ``UsageError``."""
    if parts <= 1:
        return [Item(key, [memoryview(header.pack()), data])]
    shards = header.shards(parts, split)
    return [
        Item(name, [memoryview(shard.pack()), *shard.part_of(data)])
        for name, shard in zip(_names([key] * parts, 0, parts, every=True), shards, strict=True)
    ]


def _names(keys: Sequence[str], rank: int, parts: int, *, every: bool = False) -> Sequence[str]:
    """The keys of one part, or of every part of one tensor, as upstream calls them."""
    if parts <= 1:
        return keys
    return [f"{key}_tp_{place if every else rank}" for place, key in enumerate(keys)]


def elements_of(keys: Sequence[str], tensors: Sequence[Any], held: contextlib.ExitStack) -> Elements:
    """Of objects, whose memory is lent until ``held`` ends; what lies on a GPU is copied to the host first."""

    def elements(place: int) -> Tensor:
        tensor = tensors[place]
        if getattr(tensor, "is_cuda", False):
            tensor = tensor.cpu()
        header = TensorHeader.of(tensor)
        return header, held.enter_context(byte_view(tensor, f"the tensor for {keys[place]!r}"))

    return elements


def for_items(config: ReplicateConfig | None, keys: int, owners: Sequence[int]) -> ReplicateConfig | None:
    """A configuration that names a group for each key, for what is put of those keys."""
    if config is None or config.group_ids is None or len(config.group_ids) != keys:
        return config
    made = config.copy()
    made.group_ids = [config.group_ids[place] for place in owners]
    return made
