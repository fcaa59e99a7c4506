"""Real nodes in one process on one metadata store, and what they register and get."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from p2pstore.pull.get import GetRequest, GetResult
from tests.p2pstore.samples import MIB, content, write_tree

FILES = {"config.json": b"{}", "model 1/é": content(3 * MIB + 1), "empty": b"", "z": content(MIB, 3)}
WAIT = 60.0
Start = Callable[..., Awaitable[Node]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts nodes on one metadata store, each with a state directory of its own."""
    server = MemoryServer()
    async with AsyncExitStack() as nodes:

        async def starter(name: str, **options: Any) -> Node:
            state = tmp_path / f"state of {name}"
            state.mkdir(exist_ok=True)
            made = await Node.start(NodeOptions(name, state=state, **options), MemoryStore(server))
            nodes.push_async_callback(made.close)
            return made

        yield starter


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tree(tmp_path / "tree", FILES, ("none",))
    return tmp_path / "tree"


async def register(node: Node, path: Path, name: str = "n", **options: Any) -> dict[str, Any]:
    return await node.register(path, name, hash_name="xxh3_128", **options)


async def get(node: Node, dest: Path, name: str = "n", **options: Any) -> GetResult:
    return await asyncio.wait_for(node.get(GetRequest(name, dest, **options), lambda _: None), WAIT)


def damage(path: Path, holder: Node) -> None:
    """Change a byte as a failing disk does: no stamp tells the holder of it."""
    holder.parts.watcher._on_touched = lambda _: None
    before = path.stat()
    with open(path, "r+b") as stream:
        stream.seek(100)
        stream.write(b"!" if path.read_bytes()[100:101] != b"!" else b"?")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def leftovers(directory: Path) -> set[str]:
    """What a get that did not end left."""
    return {p.name for p in directory.iterdir() if ".part" in p.name}
