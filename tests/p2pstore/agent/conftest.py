from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from p2pstore.agent.home import Home
from p2pstore.metadata.memory import MemoryStore
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from tests.cli.fake_agent import FakeAgent
from tests.p2pstore.agent.api import Api


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path / "home", {})


@pytest.fixture
def agent(home: Home) -> Iterator[FakeAgent]:
    fake = FakeAgent(home)
    yield fake
    fake.close()


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    directory = Path(tempfile.mkdtemp(prefix="api"))  # a socket's path may not be long
    node = await Node.start(NodeOptions("n"), MemoryStore())
    made = Api(node, directory / "s")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(made.path))
    await made.server.start(sock)
    yield made
    await made.session.close()
    await made.jobs.close()
    await made.copies.close()
    await made.server.close()
    await node.close()
    shutil.rmtree(directory)
