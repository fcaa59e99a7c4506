from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pstore.agent.embedded_etcd import EmbeddedEtcd, find_etcd
from p2pstore.errors import MetadataUnavailable
from p2pstore.metadata.store import Put
from p2pstore.metadata.urls import open_store
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import DIGEST, FakeAgent, status_answer

LEASE_SECONDS = 36_000
"""Longer than all commands of this module take together."""

NODE = {"node": "alpha", "control": "127.0.0.1:7301", "zone": "rack1", "version": "0.1.0"}
OBJECT = {
    "name": "models/llama",
    "manifest": DIGEST,
    "size": 10 << 20,
    "chunk_size": 1 << 20,
    "chunks": 10,
    "files": 1,
    "kind": "file",
    "hash": "xxh3_128",
    "creator": "alpha",
    "created": 1.0,
}
RECORDS = {
    "mooncake/p2p/v1/nodes/alpha": NODE,
    "mooncake/p2p/v1/objects/models/llama": OBJECT,
    f"mooncake/p2p/v1/replicas/{DIGEST}/alpha": {"node": "alpha", "state": "complete", "role": "gold"},
    f"mooncake/p2p/v1/replicas/{DIGEST[::-1]}/beta": {"node": "beta", "state": "partial", "role": "replica"},
    "mooncake/p2p/v1/objects/broken": [],
    "mooncake/ram/host:1": {"name": "host:1", "protocol": "tcp", "tcp_data_port": 1, "buffers": []},
    "mooncake/what/is\x1bthis": {"x": 1},
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real etcd that holds one record of each kind."""
    try:
        find_etcd()
    except MetadataUnavailable as error:
        pytest.skip(f"no etcd here: {error}")
    etcd = EmbeddedEtcd(tmp_path_factory.mktemp("etcd"))

    async def fill() -> str:
        url = await etcd.start()
        store = open_store(url)
        lease = await store.grant(LEASE_SECONDS)
        await store.commit(
            [Put(key, json.dumps(value).encode(), lease if "/nodes/" in key else 0) for key, value in RECORDS.items()]
        )
        await store.close()
        return url

    yield asyncio.run(fill())
    asyncio.run(etcd.stop())


def test_people_see_a_tree(mooncake: Mooncake, url: str) -> None:
    done = mooncake("etcd", "inspect", "--metadata", url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.strip("│├└─ ") for line in done.stdout.splitlines()]
    assert lines[0].startswith(f"{url}  (etcd 3.")
    assert "nodes (1)" in lines
    assert any(line.startswith("alpha  127.0.0.1:7301  zone rack1  lease ") for line in lines)
    assert "models/llama  10.0 MiB in chunks of 1.0 MiB  3f786850e387" in lines
    assert "alpha  complete  gold" in lines
    assert f"{DIGEST[::-1][:12]}  beta  partial  replica" in lines
    assert any(line.startswith("mooncake/p2p/v1/objects/broken  malformed: ") for line in lines)
    assert any(line.startswith("mooncake/ram/host:1  ") for line in lines)
    assert any(line.startswith("mooncake/what/is\\x1bthis  8 bytes  ") for line in lines)
    assert "\x1b" not in done.stdout


def test_verbose_shows_every_field(mooncake: Mooncake, url: str) -> None:
    shown = mooncake("etcd", "inspect", "--metadata", url, "-v").stdout
    assert f"manifest: {DIGEST}" in shown
    assert "tcp_data_port: 1" in shown


def test_json_and_prefix(mooncake: Mooncake, url: str) -> None:
    done = mooncake("etcd", "inspect", "--metadata", url, "--json")
    document = json.loads(done.stdout)
    assert [node["node"] for node in document["nodes"]] == ["alpha"]
    assert 0 < document["nodes"][0]["lease_left"] <= LEASE_SECONDS
    narrowed = mooncake("etcd", "inspect", "--metadata", url, "--json", "--prefix", "mooncake/ram/")
    document = json.loads(narrowed.stdout)
    assert (document["nodes"], len(document["upstream"])) == ([], 1)


def test_quiet_prints_keys(mooncake: Mooncake, url: str) -> None:
    keys = mooncake("etcd", "inspect", "--metadata", url, "-q").stdout.splitlines()
    assert keys == sorted(key.replace("\x1b", "\\x1b") for key in RECORDS)


def test_nothing_is_said_to_be_nothing(mooncake: Mooncake, url: str) -> None:
    assert "nothing of Mooncake's" in mooncake("etcd", "inspect", "--metadata", url, "--prefix", "zzz").stdout


def test_the_running_agent_names_the_server(agent: FakeAgent, mooncake: Mooncake, url: str) -> None:
    agent.answers["GET /v1/status"] = {**status_answer(agent.home), "metadata": url}
    assert json.loads(mooncake("etcd", "inspect", "--json").stdout)["url"] == url


def test_without_a_server_it_asks_for_one(mooncake: Mooncake) -> None:
    done = mooncake("etcd", "inspect")
    assert done.returncode == 2
    assert "name one with --metadata etcd://HOST:PORT" in done.stderr


def test_a_server_that_is_not_there_ends_with_6(mooncake: Mooncake, tmp_path: Path) -> None:
    done = mooncake("etcd", "inspect", "--metadata", "etcd://127.0.0.1:1")
    assert done.returncode == 6
    assert "etcd://127.0.0.1:1 does not answer" in done.stderr


def test_stale_records_are_marked_unless_nobody_is_asked(mooncake: Mooncake, url: str) -> None:
    shown = mooncake("etcd", "inspect", "--metadata", url).stdout
    assert "STALE: it has no rpc_meta record, so nobody can open it" in shown
    assert "STALE" not in mooncake("etcd", "inspect", "--metadata", url, "--no-probe").stdout


def test_gc_says_what_it_would_do_and_does_it_when_told(mooncake: Mooncake, url: str) -> None:
    before = mooncake("etcd", "inspect", "--metadata", url, "-q").stdout.splitlines()
    done = mooncake("etcd", "gc", "--metadata", url)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split("  ")[:2] == ["would remove", "mooncake/ram/host:1"]
    assert done.stderr == "1 record would be removed; remove them with --yes\n"
    assert mooncake("etcd", "gc", "--metadata", url, "--dry-run", "-q").stdout == "mooncake/ram/host:1\n"
    assert mooncake("etcd", "inspect", "--metadata", url, "-q").stdout.splitlines() == before
    done = mooncake("etcd", "gc", "--metadata", url, "--dry-run", "--yes")
    assert (done.returncode, "exclude each other" in done.stderr) == (2, True)
    document = json.loads(mooncake("etcd", "gc", "--metadata", url, "--yes", "--json").stdout)
    assert [row["key"] for row in document["removed"]] == ["mooncake/ram/host:1"]
    assert (document["dry_run"], document["changed"]) == (False, [])
    after = mooncake("etcd", "inspect", "--metadata", url, "-q").stdout.splitlines()
    assert after == [key for key in before if key != "mooncake/ram/host:1"]
    done = mooncake("etcd", "gc", "--metadata", url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing is stale\n")
