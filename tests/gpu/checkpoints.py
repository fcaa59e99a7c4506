"""A checkpoint of two shards, and what the tests on a real GPU call theirs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from p2pstore import P2PStore

MIB = 1 << 20

Pair = tuple[P2PStore, P2PStore]


def checkpoint(root: Path) -> dict[str, Any]:
    """Two shards of some hundred MiB; what is in them."""
    import safetensors.torch as safetensors  # not above: a module that skips itself cannot be imported by another
    import torch

    root.mkdir()
    found: dict[str, Any] = {}
    for shard in range(2):
        made = {}
        for layer in range(4):
            name = f"model.layers.{4 * shard + layer}"
            made[f"{name}.mlp.up_proj.weight"] = torch.randn(4096, 2048).to(torch.bfloat16)
            made[f"{name}.mlp.down_proj.weight"] = torch.randn(2048, 4096).to(torch.bfloat16)
            made[f"{name}.input_layernorm.weight"] = torch.randn(2048)
        safetensors.save_file(made, root / f"model-{shard}.safetensors", {"format": "pt"})
        found.update(made)
    return found


def path_with(root: Path) -> str:
    """``PYTHONPATH`` of a child: this tree, and what this process has, where packages may have been carried to."""
    return os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
