"""What the plug-in uses of LMCache 0.5.6, made small: its classes without torch. ``tests/serving`` has the real ones."""

from __future__ import annotations

import ctypes
import struct
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


class Size(tuple[int, ...]):
    __slots__ = ()

    def numel(self) -> int:
        made = 1
        for each in self:
            made *= each
        return made


@dataclass(frozen=True)
class DType:
    name: str
    itemsize: int


FLOAT16 = DType("float16", 2)
FLOAT32 = DType("float32", 4)
DTYPES = (FLOAT16, FLOAT32)

LAYERS, TOKENS, WIDTH = 2, 8, 4


class Format:
    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Format) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]


KV_2LTD = Format(1)


@dataclass
class RemoteMetadata:
    length: int
    shapes: list[Size]
    dtypes: list[DType]
    fmt: Format

    def serialize(self) -> bytes:
        shape = (*self.shapes[0], 0, 0, 0, 0)[:4]
        return struct.pack("7i", self.length, self.fmt.value, DTYPES.index(self.dtypes[0]), *shape)

    @staticmethod
    def deserialize(data: Any) -> RemoteMetadata:
        length, fmt, dtype, *shape = struct.unpack_from("7i", data)
        while len(shape) > 1 and not shape[-1]:
            shape.pop()
        return RemoteMetadata(length, [Size(shape)], [DTYPES[dtype]], Format(fmt))


@dataclass
class Metadata:
    model_name: str = "a/model"
    dtype: DType = FLOAT32
    chunk_size: int = TOKENS

    def get_shapes(self) -> list[Size]:
        return [Size((2, LAYERS, self.chunk_size, WIDTH))]

    def get_dtypes(self) -> list[DType]:
        return [self.dtype]


@dataclass
class Config:
    extra_config: dict[str, Any] | None = None
    remote_serde: str | None = "naive"
    use_layerwise: bool = False


class Chunk:
    """A memory object."""

    def __init__(self, shapes: list[Size], dtypes: list[DType], fmt: Format) -> None:
        self.shapes, self.dtypes, self.fmt = shapes, dtypes, fmt
        self.used = sum(shape.numel() * dtype.itemsize for shape, dtype in zip(shapes, dtypes, strict=True))
        self.memory = (ctypes.c_ubyte * self.used)()
        self.refs = 1

    @property
    def byte_array(self) -> memoryview:
        return memoryview(self.memory)[: self.used]

    @property
    def data_ptr(self) -> int:
        return ctypes.addressof(self.memory)

    def get_size(self) -> int:
        return self.used

    def get_shapes(self) -> list[Size]:
        return self.shapes

    def get_dtypes(self) -> list[DType]:
        return self.dtypes

    def get_memory_format(self) -> Format:
        return self.fmt

    def ref_count_down(self) -> None:
        self.refs -= 1
        assert self.refs >= 0


class LocalBackend:
    """Where memory objects come from: ``room`` of them at most."""

    def __init__(self, metadata: Metadata, room: int = 1000) -> None:
        self.metadata = metadata
        self.room = room
        self.given: list[Chunk] = []

    def allocate(self, shapes: Any, dtypes: Any, fmt: Any, *, busy_loop: bool) -> Chunk | None:
        assert not busy_loop, "it would wait for ever"
        if sum(chunk.refs > 0 for chunk in self.given) >= self.room:
            return None
        self.given.append(Chunk(list(shapes), list(dtypes), fmt))
        return self.given[-1]


class RemoteConnector:
    def __init__(self, config: Config, metadata: Metadata | None) -> None:
        assert metadata is not None
        extra = config.extra_config
        self.save_chunk_meta = extra is None or extra.get("save_chunk_meta", True) or config.use_layerwise
        self.meta_shapes = metadata.get_shapes()
        self.meta_dtypes = metadata.get_dtypes()
        self.meta_fmt = KV_2LTD
        self.full_chunk_size_bytes = self.meta_shapes[0].numel() * self.meta_dtypes[0].itemsize
        self.single_token_size = self.full_chunk_size_bytes // metadata.chunk_size
        self.remote_metadata_bytes = 28

    def reshape_partial_chunk(self, chunk: Chunk, size: int) -> Chunk:
        if not size or size % self.single_token_size or size > self.full_chunk_size_bytes:
            raise ValueError("illegal")
        shape = list(chunk.shapes[0])
        shape[2] = size // self.single_token_size
        chunk.shapes, chunk.used = [Size(shape)], size
        return chunk


class ConnectorAdapter:
    def __init__(self, schema: str = "") -> None:
        self.schema = schema


@dataclass
class Context:
    config: Config
    local_cpu_backend: LocalBackend
    metadata: Metadata | None = None
    loop: Any = None
    plugin_name: str | None = "mooncake"


@dataclass(frozen=True)
class Key:
    number: int
    dtype: str = "float"
    model: str = "a/model"
    worker: int = 0
    more: str = field(default="")

    def to_string(self) -> str:
        return f"{self.model}@1@{self.worker}@{self.number:x}@{self.dtype}{self.more}"


@contextmanager
def installed() -> Iterator[None]:
    """``import lmcache`` finds this, as far as it goes, and our plug-in is imported anew."""
    modules = {
        "lmcache": types.ModuleType("lmcache"),
        "lmcache.v1": types.ModuleType("lmcache.v1"),
        "lmcache.v1.protocol": types.ModuleType("lmcache.v1.protocol"),
        "lmcache.v1.storage_backend": types.ModuleType("lmcache.v1.storage_backend"),
        "lmcache.v1.storage_backend.connector": types.ModuleType("lmcache.v1.storage_backend.connector"),
        "lmcache.v1.storage_backend.connector.base_connector": types.ModuleType("base_connector"),
    }
    modules["lmcache.v1.protocol"].RemoteMetadata = RemoteMetadata  # type: ignore[attr-defined]
    connector = modules["lmcache.v1.storage_backend.connector"]
    connector.ConnectorAdapter = ConnectorAdapter  # type: ignore[attr-defined]
    connector.extract_plugin_type = lambda name: name.split(".", 1)[0]  # type: ignore[attr-defined]
    modules["lmcache.v1.storage_backend.connector.base_connector"].RemoteConnector = RemoteConnector  # type: ignore[attr-defined]
    ours = "p2pstore.integrations.lmcache"
    before = {name: sys.modules.pop(name, None) for name in (*modules, ours)}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
