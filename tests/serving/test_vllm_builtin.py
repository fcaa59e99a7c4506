"""vLLM's own Mooncake connectors without a change: on our store and engine, and with upstream's wheel on our master."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.interop.wheels import fetched
from tests.ports import reserved_port
from tests.serving.conftest import Start, words
from tests.serving.engines import Engine, get
from tests.serving.pairs import MOST, through_the_store

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slow]

WHEEL = "0.3.13.post1"


def store(role: str, name: str, **more: Any) -> dict[str, Any]:
    return {
        "kv_connector": "MooncakeStoreConnector",
        "kv_role": role,
        # Its default is one socket for all engines of a host.
        "kv_connector_extra_config": {"lookup_rpc_port": name},
        **more,
    }


def both(start: Start, variables: dict[str, str], before: list[Path]) -> tuple[Engine, Engine]:
    producer = start("producer", transfer=store("kv_producer", "p"), variables=variables, before=before)
    consumer = start("consumer", transfer=store("kv_consumer", "c"), variables=variables, before=before)
    return producer.wait(), consumer.wait()


def test_the_store_connector_on_our_store(start: Start, mooncake_json: dict[str, str], prompt: list[int]) -> None:
    """No wheel is there: our package's entry point lets vLLM find ours in its place."""
    producer, consumer = both(start, mooncake_json, [])
    try:
        through_the_store(producer, consumer, prompt)
    finally:
        producer.end()
        consumer.end()


def test_the_store_connector_with_upstreams_client_on_our_master(
    start: Start, mooncake_json: dict[str, str], prompt: list[int]
) -> None:
    producer, consumer = both(start, mooncake_json, [fetched(WHEEL)])
    try:
        through_the_store(producer, consumer, prompt)
    finally:
        producer.end()
        consumer.end()


def test_the_peer_to_peer_connector_on_our_engine(start: Start, prompt: list[int]) -> None:
    """The decoder asks for the blocks of a prompt, and the other writes them into its memory."""
    bootstrap = reserved_port()
    variables = {"VLLM_MOONCAKE_BOOTSTRAP_PORT": str(bootstrap)}

    def peer(role: str) -> dict[str, Any]:
        extra = {"mooncake_protocol": "tcp"}
        return {"kv_connector": "MooncakeConnector", "kv_role": role, "kv_connector_extra_config": extra}

    prefill = start("prefill", transfer=peer("kv_producer"), variables=variables)
    decode = start("decode", transfer=peer("kv_consumer"), variables={"VLLM_MOONCAKE_BOOTSTRAP_PORT": "1"})
    prefill.wait(), decode.wait()
    try:
        alone = decode.ask(prompt)
        # The decoder keeps what it computed, so that another beginning is asked for, once with and once without peers.
        text = [*words("another beginning", 10), *prompt[10:]]
        where = f"http://127.0.0.1:{bootstrap}"
        (engine,) = get(f"{where}/query").values()
        first = {"do_remote_decode": True, "do_remote_prefill": False, "transfer_id": "one"}
        prefill.ask(text, 1, kv_transfer_params=first)
        then = {
            "do_remote_decode": False, "do_remote_prefill": True, "transfer_id": "one",
            "remote_bootstrap_addr": where, "remote_engine_id": engine["engine_id"],
        }  # fmt: skip
        taken = decode.ask(text, kv_transfer_params=then)
        assert taken.cached >= MOST, decode.last_words()
        assert taken.finish == "length"
        assert taken.text != alone.text
        computed = prefill.ask(text)
        assert taken.text == computed.text
    finally:
        prefill.end()
        decode.end()
