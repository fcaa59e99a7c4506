"""A process that puts tensors along several axes, with upstream's class or ours, and tells what is in the pool then.

``STORE_MODULE`` says where the class is, ``STORE_MASTER`` the master, ``STORE_WITH`` whether tensors of PyTorch are put,
too. What it tells is the digest of each value by its key, and of each tensor that it reads by what was asked for.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import json
import os
import struct
from typing import Any

SHAPE = (4, 6, 8)


def axis(module: Any, kind: str, rank: int, size: int, **more: int) -> Any:
    made = module.ParallelAxis()
    made.kind, made.rank, made.size = kind, rank, size
    for name, value in more.items():
        setattr(made, name, value)
    return made


def spread(module: Any, *axes: Any) -> Any:
    made = module.TensorParallelism()
    made.axes = list(axes)
    return made


class Partition:
    def __init__(self, rank: int, size: int, split_dim: int) -> None:
        self.rank, self.size, self.split_dim = rank, size, split_dim


def layouts(module: Any) -> dict[str, list[tuple[Any, Any]]]:
    """Of each base key, the layouts in which it is put: a parallelism, or a writer's partition."""
    mixed = [("dp", {}), ("ep", {"expert_id": 5}), ("pp", {"stage_id": 7})]
    others = [axis(module, kind, 1, 3, **more) for kind, more in reversed(mixed)]
    return {
        "direct": [(None, None)],
        "tp": [(spread(module, axis(module, "tp", rank, 3, split_dim=1)), None) for rank in range(3)],
        "mixed": [
            (spread(module, others[0], axis(module, "TP", rank, 2, split_dim=2), others[1]), None) for rank in (0, 1)
        ],
        "tagged": [(spread(module, *others), None)],
        "writer": [(None, Partition(rank, 2, 0)) for rank in range(2)],
    }


def laid(numbers: bytes, shape: tuple[int, ...]) -> Any:
    """A whole tensor of int32 with its header, as it lies in memory."""
    dims = shape + (-1,) * (8 - len(shape))
    head = struct.pack("<IHHiiIIQQ", 0x4D4F4F4E, 1, 304, 6, len(shape), 0, 0, 304, len(numbers))
    data = head + struct.pack("<16qII", *dims, *dims, 0, 0) + bytes(128) + numbers
    return (ctypes.c_ubyte * len(data))(*data)


def put_by_address(module: Any, store: Any) -> list[int]:
    count = SHAPE[0] * SHAPE[1] * SHAPE[2]
    memory = laid(struct.pack(f"<{count}i", *range(count)), SHAPE)
    at, size = ctypes.addressof(memory), len(memory)
    assert store.register_buffer(at, size) == 0
    codes = [
        store.put_tensor_with_parallelism_from(f"from {base}", at, size, parallelism, module.ReplicateConfig(), writer)
        for base, several in layouts(module).items()
        for parallelism, writer in several
    ]
    assert store.unregister_buffer(at) == 0
    return codes


def put_tensors(module: Any, store: Any) -> list[int]:
    import torch

    whole = torch.arange(SHAPE[0] * SHAPE[1] * SHAPE[2], dtype=torch.int32).reshape(SHAPE)
    codes = []
    for base, several in layouts(module).items():
        for rank, (parallelism, writer) in enumerate(several):
            tensor = whole.narrow(1, 2 * rank, 2).contiguous() if base == "tp" else whole
            codes.append(store.put_tensor_with_parallelism(base, tensor, parallelism, writer_partition=writer))
    return codes


def read(module: Any, store: Any, prefix: str) -> dict[str, Any]:
    """What readers get, by what they want."""
    told: dict[str, Any] = {}

    def want(name: str, base: str, mode: str, *axes: Any) -> None:
        target = module.ReadTarget()
        target.mode = mode
        target.parallelism = spread(module, *axes) if axes else None
        found = store.get_tensor_with_parallelism(prefix + base, target)
        room = (ctypes.c_ubyte * 4096)()
        assert store.register_buffer(ctypes.addressof(room), 4096) == 0
        into = store.get_tensor_with_parallelism_into(prefix + base, ctypes.addressof(room), 4096, target)
        told[name] = None if found is None else [list(found.shape), found.flatten().tolist()]
        told[f"{name}, into"] = None if into is None else [list(into.shape), into.flatten().tolist()]
        del into
        store.unregister_buffer(ctypes.addressof(room))

    want("all of a direct one", "direct", "as_stored")
    want("all of what is no shard", "direct", "full")
    want("nothing", "no such key", "full")
    want("a shard", "tp", "shard", axis(module, "tp", 2, 3, split_dim=1))
    want("a shard of other parts", "tp", "shard", axis(module, "tp", 1, 2, split_dim=1))
    want("all of its shards", "tp", "full", axis(module, "tp", 0, 3, split_dim=1))
    others = [axis(module, "pp", 1, 3, stage_id=7), axis(module, "ep", 1, 3, expert_id=5)]
    want("a mixed shard", "mixed", "shard", others[0], axis(module, "tp", 1, 2, split_dim=2), others[1])
    want("a mixed one, axes in another order", "mixed", "shard", axis(module, "tp", 0, 2, split_dim=2), *others)
    want("all of a mixed one", "mixed", "full", axis(module, "tp", 0, 2, split_dim=2), *others)
    want("a tagged one", "tagged", "shard", axis(module, "dp", 1, 3), *others)
    want("another tag", "tagged", "shard", axis(module, "dp", 0, 3), *others)
    want("what its writers put", "writer", "full")
    want("one writer's, as a shard", "writer", "shard", axis(module, "tp", 1, 2, split_dim=0))
    return told


def main() -> None:
    module = importlib.import_module(os.environ["STORE_MODULE"])
    store = module.MooncakeDistributedStore()
    master = os.environ["STORE_MASTER"]
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", 64 << 20, 32 << 20, "tcp", "", master) == 0
    tensors = os.environ["STORE_WITH"] == "tensors"
    told: dict[str, Any] = {}
    told["codes"] = put_by_address(module, store) + (put_tensors(module, store) if tensors else [])
    if tensors:
        told["read"] = {prefix: read(module, store, prefix) for prefix in ("from ", "")}
    print("answer " + json.dumps(told), flush=True)
    input()
    told = {key: hashlib.sha256(store.get(key)).hexdigest() for key in json.loads(input())}
    print("answer " + json.dumps(told), flush=True)
    input()
    store.close()


if __name__ == "__main__":
    main()
