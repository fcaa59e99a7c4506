"""What plug-ins are told: by ``mooncake.json``, and above it by what the engine's own configuration has for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.config import mooncake_json
from engine.config.variables import CONFIG_PATH
from engine.metadata.handshake import URL as P2PHANDSHAKE
from engine.net import addresses
from engine.net.published import local_address
from p2pstore.errors import MooncakeError
from p2pstore.integrations import fingerprint
from p2pstore.kv.client.master import DEFAULT_PORT

CACHE_PREFIX = "cache_prefix"
"""Names the weights, in all keys: ``mooncake serve init`` makes one."""

NAMES = (
    "local_hostname", "metadata_server", "master_server_address", "protocol", "device_name", "global_segment_size",
    "local_buffer_size", "tenant_id", "enable_ssd_offload", "ssd_offload_path", CACHE_PREFIX,
)  # fmt: skip
"""Settings of the store that plug-ins take."""

MASTER = "127.0.0.1:50051"
"""Where nobody says where it is."""


def settings(said: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """All that was said of ``NAMES``, as ``setup`` of the store takes it, and the ``CACHE_PREFIX``.

    ``said`` is the engine's configuration, which may have more in it. Where neither names this host, it is called by
    the address from which it reaches the master, for others are to reach it, too. Raises ``BadConfig`` for a
    ``mooncake.json`` that cannot be read, and ``UsageError`` for a master's address that is none.
    """
    found: dict[str, Any] = {"metadata_server": P2PHANDSHAKE}
    path = environ.get(CONFIG_PATH)
    if path:
        file = mooncake_json.read(Path(path))
        found |= {name: value for name in NAMES if (value := getattr(file, name, None)) is not None}
    found |= {name: said[name] for name in NAMES if said.get(name) is not None}
    if "local_hostname" not in found:
        master = addresses.given(str(found.get("master_server_address") or MASTER), DEFAULT_PORT)
        found["local_hostname"] = local_address(master, 0) or "127.0.0.1"
    return found


def namespace(cache_prefix: str, model: str) -> str:
    """What the keys of a model begin with: what was given, or what its weights look like if they are a directory here.

    With neither, weights that were published under one name under which others were, too, are taken for these.
    """
    if cache_prefix or not Path(model).is_dir():
        return cache_prefix
    try:
        return fingerprint.sampled(Path(model))
    except MooncakeError:
        return ""
