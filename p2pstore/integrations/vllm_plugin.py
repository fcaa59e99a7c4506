"""What vLLM calls in each of its processes before anything else (entry point ``vllm.general_plugins``)."""

from __future__ import annotations

from p2pstore.integrations.shim import install


def register() -> None:
    """Let vLLM's own Mooncake connectors find our store and engine where upstream's wheel is not installed."""
    install()
