"""What an engine is told so that it uses the pooled store: files, and the commands that start it. Pure.

All engines that are to find each other's blocks get the same. What they must agree on stands in the files: the weights'
digest, their type, tokens of a block, and the seed of the hash.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from p2pstore.errors import UsageError
from p2pstore.integrations.fingerprint import Fingerprint

MOONCAKE_JSON = "mooncake.json"
"""What leads to the store; upstream's file, which all engines read."""

LOCAL_BUFFER = 1 << 30
"""Bytes that upstream's client keeps for transfers, where that is used; ours takes no heed of it."""

KV_ROLES = {"both": "kv_both", "producer": "kv_producer", "consumer": "kv_consumer"}
"""Whether an engine puts blocks, takes them, or does both: our word and vLLM's."""

BLOCK_SIZES = {"vllm": 16, "sglang": 64, "lmcache": 256}
"""Tokens of a block where nothing else is said: each engine's own on a GPU."""


class Wishes(NamedTuple):
    """What the user said, and what was found out. Sizes in bytes."""

    model: Path
    """Where the checkpoint is."""
    fingerprint: Fingerprint
    master: str
    directory: Path
    """Where the files will be."""
    role: str = "both"
    segment_size: int = 4 << 30
    protocol: str = "tcp"
    devices: str = ""
    metadata: str = "P2PHANDSHAKE"
    tenant: str = "default"


class Plan(NamedTuple):
    """Documents by the name of their file, and what to type: a comment is one that begins with ``#``."""

    files: Mapping[str, Mapping[str, Any]]
    commands: tuple[str, ...]


def plan(engine: str, wishes: Wishes) -> Plan:
    """How to start this engine on the store. Raises ``UsageError`` for one that is not known."""
    if engine not in ENGINES:
        raise UsageError(detail=f"{engine!r} is none of {', '.join(ENGINES)}")
    files, start = ENGINES[engine](wishes)
    store = {
        "metadata_server": wishes.metadata,
        "master_server_address": wishes.master,
        "protocol": wishes.protocol,
        "device_name": wishes.devices,
        "global_segment_size": wishes.segment_size,
        "local_buffer_size": LOCAL_BUFFER,
        "tenant_id": wishes.tenant,
        "cache_prefix": wishes.fingerprint.text,
    }
    variables = [f"export MOONCAKE_CONFIG_PATH={_quoted(wishes.directory / MOONCAKE_JSON)}"]
    if wishes.fingerprint.seed:
        variables.append(f"export PYTHONHASHSEED={shlex.quote(wishes.fingerprint.seed)}")
    return Plan({MOONCAKE_JSON: store, **files}, (*variables, *start))


def _vllm(wishes: Wishes) -> tuple[Mapping[str, Mapping[str, Any]], list[str]]:
    name = "vllm.json"
    document = {
        "kv_connector": "MooncakeStoreConnector",
        "kv_connector_module_path": "p2pstore.integrations.vllm",
        "kv_role": KV_ROLES[wishes.role],
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {"cache_prefix": wishes.fingerprint.text},
    }
    return {name: document}, [_vllm_serve(wishes, wishes.directory / name)]


def _vllm_serve(wishes: Wishes, transfer: Path) -> str:
    said = wishes.fingerprint
    dtype, _, kept = said.dtype.partition("+")
    options = ["--dtype", dtype, "--block-size", str(said.block_size), "--prefix-caching-hash-algo", said.hash_name]
    if kept:
        options += ["--kv-cache-dtype", kept]
    start = shlex.join(["vllm", "serve", str(wishes.model), *options])
    return f'{start} --kv-transfer-config "$(cat {_quoted(transfer)})"'


def _sglang(wishes: Wishes) -> tuple[Mapping[str, Mapping[str, Any]], list[str]]:
    name = "sglang.json"
    document = {
        "backend_name": "mooncake",
        "module_path": "p2pstore.integrations.sglang",
        "class_name": "MooncakeStorage",
        "interface_v1": 1,
        "cache_prefix": wishes.fingerprint.text,
    }
    said = wishes.fingerprint
    start = shlex.join(
        [
            "python", "-m", "sglang.launch_server", "--model-path", str(wishes.model),
            "--dtype", said.dtype.partition("+")[0], "--page-size", str(said.block_size),
            "--enable-hierarchical-cache", "--hicache-storage-backend", "dynamic",
        ]
    )  # fmt: skip
    extra = f'--hicache-storage-backend-extra-config "$(cat {_quoted(wishes.directory / name)})"'
    return {name: document}, [f"{start} {extra}"]


def _lmcache(wishes: Wishes) -> tuple[Mapping[str, Mapping[str, Any]], list[str]]:
    name, transfer = "lmcache.yaml", "vllm.json"
    document = {
        "chunk_size": wishes.fingerprint.block_size,
        "remote_serde": "naive",
        "pre_caching_hash_algorithm": _LMCACHE_HASHES.get(wishes.fingerprint.hash_name, wishes.fingerprint.hash_name),
        "remote_storage_plugins": ["mooncake"],
        "extra_config": {
            "remote_storage_plugin.mooncake.module_path": "p2pstore.integrations.lmcache",
            "remote_storage_plugin.mooncake.class_name": "MooncakeAdapter",
            "mooncake_cache_prefix": wishes.fingerprint.text,
        },
    }
    connector = {"kv_connector": "LMCacheConnectorV1", "kv_role": KV_ROLES[wishes.role]}
    start = shlex.join(["vllm", "serve", str(wishes.model), "--dtype", wishes.fingerprint.dtype.partition("+")[0]])
    return {name: document, transfer: connector}, [
        f"export LMCACHE_CONFIG_FILE={_quoted(wishes.directory / name)}",
        f'{start} --kv-transfer-config "$(cat {_quoted(wishes.directory / transfer)})"',
    ]


_LMCACHE_HASHES = {"sha256": "sha256_cbor"}
"""LMCache's names for vLLM's hashes that several processes agree on."""


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


ENGINES: Mapping[str, Callable[[Wishes], tuple[Mapping[str, Mapping[str, Any]], list[str]]]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "lmcache": _lmcache,
}
"""What is known of each."""
