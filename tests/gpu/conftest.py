"""Tests on a real GPU: ``pytest tests/gpu`` in a copy of the tree. Without one all are skipped, and say why.

They need cuda-bindings; most need PyTorch, too, and one each CuPy and JAX, and are skipped without. No plugin of
pytest, no server, no network.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

# Before JAX or PyTorch are imported: JAX takes three quarters of the GPU otherwise.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

from engine.cuda import load
from engine.cuda.load import Cuda
from engine.errors import GpuUnavailable
from p2pstore import P2PStore


@pytest.fixture(scope="session")
def cuda() -> Cuda:
    """The real driver."""
    try:
        return load.cuda()
    except GpuUnavailable as error:
        pytest.skip(f"NOT TESTED ON A GPU: {error}")


@pytest.fixture(autouse=True)
def _a_gpu(cuda: Cuda) -> None:
    """Every test here needs one."""


@pytest.fixture
def pair(
    cuda: Cuda, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[P2PStore, P2PStore]]:
    """Who has, and who gets."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    url = f"memory://{secrets.token_hex(8)}"
    with P2PStore(url, node="a", connections=4) as one, P2PStore(url, node="b", connections=4) as other:
        yield one, other
