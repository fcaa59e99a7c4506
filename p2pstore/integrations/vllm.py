"""vLLM's connector to the pooled store, on our client.

::

    vllm serve MODEL --kv-transfer-config '{"kv_connector": "MooncakeStoreConnector",
      "kv_connector_module_path": "p2pstore.integrations.vllm", "kv_role": "kv_both"}'

It is vLLM's own ``MooncakeStoreConnector``, with what keeps a request from harm: our store under it (see
``patient_store``), the weights' fingerprint in all keys, and blocks computed that cannot be loaded, where vLLM would
end the request with an error. The store is found as by vLLM's own: ``mooncake.json``, ``MOONCAKE_CONFIG_PATH``.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.distributed.kv_transfer.kv_connector.v1.mooncake.store import connector as theirs
from vllm.distributed.kv_transfer.kv_connector.v1.mooncake.store.data import MooncakeLookupResult

from engine.config import mooncake_json
from engine.config.variables import CONFIG_PATH
from p2pstore.errors import MooncakeError
from p2pstore.integrations import fingerprint, shim
from p2pstore.integrations.fingerprint import Fingerprint

FAIL = "fail_on_load_error"
"""A key of ``kv_connector_extra_config``: true for vLLM's default, to end requests whose blocks cannot be loaded."""

PREFIX = "cache_prefix"

log = logging.getLogger("vllm.mooncake")
"""Below vLLM's own logger: it says what is logged, and where."""


class MooncakeStoreConnector(theirs.MooncakeStoreConnector):  # type: ignore[misc] # vLLM has no types here
    """See the module."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any = None) -> None:
        _prepare(vllm_config, role)
        with shim.ours():
            super().__init__(vllm_config, role, kv_cache_config)
        worker = self.connector_worker
        if worker is not None:
            worker.lookup = _watched(worker.lookup)


def _prepare(vllm_config: Any, role: Any) -> None:
    """Settle what vLLM reads from the configuration after the connector was made."""
    transfer = vllm_config.kv_transfer_config
    extra = transfer.kv_connector_extra_config
    if not extra.get(FAIL, False):
        transfer.kv_load_failure_policy = "recompute"
    # Engines of one host must not take each other's socket.
    extra.setdefault("lookup_rpc_port", transfer.engine_id)
    if role == KVConnectorRole.WORKER:
        extra[PREFIX] = _prefix(vllm_config, str(extra.get(PREFIX) or _prefix_of_file()))
        log.info("keys of this engine begin with %s", extra[PREFIX])


def _prefix_of_file() -> str:
    """What ``mooncake serve init`` has written into ``mooncake.json``. Raises ``BadConfig``."""
    path = os.environ.get(CONFIG_PATH)
    return mooncake_json.read(Path(path)).cache_prefix or "" if path else ""


def _prefix(vllm_config: Any, given: str) -> str:
    """What all keys begin with: what the user gave, with what this engine is in truth."""
    said = fingerprint.parse(given)
    facts = _facts(vllm_config, said.weights if said is not None else "" if given else _weights(vllm_config))
    where = _where(vllm_config)
    if said is not None and given != facts.text:
        log.warning("%s=%s is not, or not only, what this engine is: %s is taken", PREFIX, given, facts.text)
    if facts.weights:
        return f"{facts.text}@{where}"
    return f"{given}@{facts._replace(weights='w0').text}@{where}"


def _facts(vllm_config: Any, weights: str) -> Fingerprint:
    cache = vllm_config.cache_config
    dtype = str(vllm_config.model_config.dtype).removeprefix("torch.")
    kept = str(cache.cache_dtype)
    return Fingerprint(
        weights,
        dtype if kept in {"auto", dtype} else f"{dtype}+{kept}",
        int(cache.block_size),
        str(cache.prefix_caching_hash_algo),
        os.environ.get("PYTHONHASHSEED", ""),
    )


def _where(vllm_config: Any) -> str:
    """Kind of device and order of a block's bytes: neither stands in the sizes of values."""
    from vllm.platforms import current_platform  # noqa: PLC0415 - it looks for devices

    layout = vllm_config.cache_config.get_resolved_kv_cache_layout()
    return f"{current_platform.device_type}-{layout.name}"


def _weights(vllm_config: Any) -> str:
    model = vllm_config.model_config
    try:
        directory = _directory(model.model, model.revision)
        for doubt in fingerprint.doubts(directory):
            log.warning("%s", doubt)
        return fingerprint.sampled(directory)
    except (MooncakeError, OSError, ValueError) as error:  # the last is the hub's, for a name that is none of its own
        log.warning("the weights of %s cannot be told from others of that name: %s", model.model, error)
        return f"w0{model.revision or ''}"


def _directory(model: str, revision: str | None) -> Path:
    """Where the weights are: a path, or the snapshot of a hub's model that was loaded.

    Raises ``OSError``, and ``ValueError`` for what is neither, such as one file or an address in an object store.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - vLLM has it

    return Path(snapshot_download(model, revision=revision, local_files_only=True))


def _watched(lookup: Any) -> Any:
    """A lookup that says how long it took, to who wants to know (``VLLM_LOGGING_LEVEL=DEBUG``).

    An error of it is a miss: it would end the thread that answers, and the scheduler would wait for ever.
    """

    def watched(num_tokens: int, block_hashes: Any) -> Any:
        began = time.monotonic()
        try:
            return lookup(num_tokens, block_hashes)
        except Exception:
            log.exception("a lookup failed; it is a miss")
            return MooncakeLookupResult(0)
        finally:
            log.debug("a lookup of %d tokens took %.1f ms", num_tokens, 1e3 * (time.monotonic() - began))

    return watched
