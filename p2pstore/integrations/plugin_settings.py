"""What plug-ins are told: by ``mooncake.json``, and above it by what the engine's own configuration has for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.config import mooncake_json
from engine.config.variables import CONFIG_PATH
from p2pstore.errors import MooncakeError
from p2pstore.integrations import fingerprint

CACHE_PREFIX = "cache_prefix"
"""Names the weights, in all keys: ``mooncake serve init`` makes one."""

NAMES = (
    "local_hostname", "metadata_server", "master_server_address", "protocol", "device_name", "global_segment_size",
    "local_buffer_size", "tenant_id", "enable_ssd_offload", "ssd_offload_path", CACHE_PREFIX,
)  # fmt: skip
"""Settings of the store that plug-ins take."""

_DEFAULTS: Mapping[str, Any] = {"local_hostname": "127.0.0.1", "metadata_server": "P2PHANDSHAKE"}


def settings(said: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """All that was said of ``NAMES``, as ``setup`` of the store takes it, and the ``CACHE_PREFIX``.

    ``said`` is the engine's configuration, which may have more in it. Raises ``BadConfig`` for a ``mooncake.json``
    that cannot be read.
    """
    found = dict(_DEFAULTS)
    path = environ.get(CONFIG_PATH)
    if path:
        file = mooncake_json.read(Path(path))
        found |= {name: value for name in NAMES if (value := getattr(file, name, None)) is not None}
    return found | {name: said[name] for name in NAMES if said.get(name) is not None}


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
