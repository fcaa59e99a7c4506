"""Ranks of this host, each a process with a real GPU, load together. No tensor library is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.cuda.load import Cuda
from p2pstore import P2PStore
from p2pstore.bench.gpu_checkpoint import Checkpoint
from tests.gpu.checkpoints import path_with

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
SIZE = 512 * MIB
WAIT = 300.0

RANK = """
import json, os, pickle, sys, time
from pathlib import Path
from engine.cuda import load
from p2pstore import P2PStore
from p2pstore.bench.gpu_memory import DriverGpus
from p2pstore.calls import given
from p2pstore.sharing.group import Group
told = json.loads(sys.argv[1])
gpus = DriverGpus(load.cuda())
given.framework_of = lambda _, device, *__: gpus.framework(device)
checkpoint = pickle.loads(Path(told["checkpoint"]).read_bytes())
rank, ranks = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
if told["dies"] == rank:
    before = Group._offer
    def offer(self, *args):
        before(self, *args)
        if rank:
            os.kill(os.getpid(), 9)
    Group._offer = offer
device = f"cuda:{rank % len(gpus.names)}"
with P2PStore(f"memory://rank-{rank}", node=f"rank-{rank}") as store:
    began = time.monotonic()
    found = store.load_tensors(
        "n", device=device, share="host", layout=told["layout"], peers=[told["peer"]], transport="tcp"
    )
    seconds = time.monotonic() - began
    mine = (rank, ranks) if told["layout"] == "shard" else (0, 1)
    right = all(gpus.same(found[name], device, shape, data) for name, shape, data in checkpoint.slices(*mine))
print(json.dumps({"right": right, "seconds": round(seconds, 3)}))
"""


def started(root: Path, rank: int, size: int, told: dict[str, Any]) -> subprocess.Popen[str]:
    variables = {
        "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
        "PYTHONPATH": path_with(ROOT), "XDG_RUNTIME_DIR": str(root),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", RANK, json.dumps(told)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, env={**os.environ, **variables},
    )  # fmt: skip


@pytest.mark.parametrize("dies", [-1, 1], ids=["all live", "one is killed"])
@pytest.mark.parametrize("layout", ["replicate", "shard"])
@pytest.mark.parametrize("size", [2, 4])
def test_ranks_load_together(
    cuda: Cuda, pair: tuple[P2PStore, P2PStore], tmp_path: Path, size: int, layout: str, dies: int
) -> None:
    """Each has a GPU, as far as there are so many; else several share one."""
    import pickle

    one, _ = pair
    (tmp_path / "m").mkdir()
    os.chmod(tmp_path, 0o700)
    checkpoint = Checkpoint(tmp_path / "m", SIZE)
    described = tmp_path / "checkpoint.pickle"
    described.write_bytes(pickle.dumps(checkpoint))
    one.register("n", tmp_path / "m")
    told = {"checkpoint": str(described), "layout": layout, "peer": one.control, "dies": dies}
    made = [started(tmp_path, rank, size, told) for rank in range(size)]
    for rank, each in enumerate(made):
        said, fault = each.communicate(timeout=WAIT)
        if rank == dies:
            assert each.returncode == -9
            continue
        assert each.returncode == 0, fault
        assert json.loads(said)["right"], fault
    if dies < 0:
        assert one._open().engine.bytes_sent < 1.01 * checkpoint.size
