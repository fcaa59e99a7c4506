"""What vLLM calls in each of its processes before anything else (entry point ``vllm.general_plugins``)."""

from __future__ import annotations

import logging

from p2pstore.integrations.shim import install

LOAD_FORMAT = "mooncake"
"""What ``--load-format`` calls ours."""

log = logging.getLogger("vllm.mooncake")
"""Below vLLM's own logger: it says what is logged, and where."""


def register() -> None:
    """Let vLLM's own Mooncake connectors find our store and engine where upstream's wheel is not installed.

    And let it load weights from peers (``p2pstore.integrations.vllm_loader``). A vLLM that has other loaders than those
    that this was made for goes without that: an engine that loads otherwise is not to be kept from it.
    """
    install()
    try:
        from vllm.model_executor.model_loader import register_model_loader  # noqa: PLC0415 - there is vLLM

        from p2pstore.integrations.vllm_loader import MooncakeModelLoader  # noqa: PLC0415 - as above
    except ImportError as error:
        log.warning("--load-format %s is not there, as this vLLM has other loaders: %s", LOAD_FORMAT, error)
        return
    register_model_loader(LOAD_FORMAT)(MooncakeModelLoader)
