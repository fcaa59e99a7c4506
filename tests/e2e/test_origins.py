"""``mooncake register hf://..``, ``https://..`` and ``file://..``, on stand-ins of the hub and of a web server."""

from __future__ import annotations

import re
import shlex
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.e2e.cluster import Cluster, eventually, tree
from tests.p2pstore.hub.stand_in import StandIn
from tests.p2pstore.origins.s3_stand_in import SECRET, Moto
from tests.p2pstore.origins.stand_in import WebStandIn
from tests.p2pstore.samples import MIB, content, write_tree

NAME = "org/model"
FILES = {"config.json": b"{}", "m.safetensors": content(5 * MIB + 1), "m.bin": content(MIB, 2)}


@pytest.fixture
def hub() -> Iterator[StandIn]:
    made = StandIn()
    made.repos[NAME] = dict(FILES)
    yield made
    made.close()


def test_a_repository_becomes_an_object_and_its_commit_a_tag(cluster: Cluster, hub: StandIn) -> None:
    one, other = cluster.agents("one", "other", MOONCAKE_HF_UPSTREAM=hub.url)
    made = one.ok("register", f"hf://{NAME}", "--exclude", "*.bin")
    commit = hub.commit(NAME)
    wanted = {path: data for path, data in FILES.items() if not path.endswith(".bin")}
    assert (made["name"], made["files"], made["commit"]) == (NAME, len(wanted), commit)
    other.ok("get", f"{NAME}:{commit}", cluster.path("got"))
    assert tree(cluster.path("got")) == wanted
    again = other.ok("register", f"hf://{NAME}", "--exclude", "*.bin")
    assert again["manifest"] == made["manifest"]
    assert hub.sent == {path: len(data) for path, data in wanted.items()}
    one.stop()
    one.start()
    assert one.ok("verify", NAME)["ok"]


def test_a_killed_agent_goes_on_from_what_came_of_the_hub(cluster: Cluster, hub: StandIn) -> None:
    big = content(50 * MIB + 5, 8)
    hub.repos[NAME]["m.safetensors"] = big
    agent = cluster.agent("one", MOONCAKE_HF_UPSTREAM=hub.url)
    hub.hold.clear()
    hub.held_from = 40 * MIB
    running = agent.begin("register", f"hf://{NAME}")
    eventually(lambda: len([name for name in agent.names() if name.startswith("origins/")]) == 2, "two sections")
    agent.kill()
    assert running.wait().status
    hub.hold.set()
    agent.start()
    asked = len(hub.asked_ranges)
    agent.ok("register", f"hf://{NAME}")
    ranges = {wanted for path, wanted in hub.asked_ranges[asked:] if path == "m.safetensors"}
    assert ranges == {"bytes=0-0", f"bytes={32 * MIB}-{48 * MIB - 1}", f"bytes={48 * MIB}-{len(big) - 1}"}
    agent.ok("get", NAME, cluster.path("got"))
    assert tree(cluster.path("got")) == hub.repos[NAME]
    assert not [name for name in agent.names() if name.startswith("origins/")]
    other = cluster.agent("other")
    other.ok("get", f"{NAME}:{hub.commit(NAME)}", cluster.path("there"))
    assert tree(cluster.path("there")) == hub.repos[NAME]


def test_slips_and_refusals(cluster: Cluster, hub: StandIn) -> None:
    agent = cluster.agent("one", MOONCAKE_HF_UPSTREAM=hub.url)
    assert "origin" in agent.fails(2, "register", "ftp://host/key")["message"]
    assert "repository" in agent.fails(2, "register", "hf://a/b/c")["message"]
    assert agent.fails(2, "register", f"hf://{NAME}", "hf://org/other")
    assert "no such repository" in agent.fails(3, "register", "hf://org/none")["message"]
    assert "revision" in agent.fails(3, "register", f"hf://{NAME}@v9")["message"]
    alone = cluster.agent("alone")
    assert "hf_upstream" in alone.fails(2, "register", "hf://org/none")["advice"]
    hub.wrong.add("m.bin")
    assert "m.bin" in agent.fails(4, "register", f"hf://{NAME}")["message"]
    assert NAME not in agent.names()
    hub.down = True
    assert "503" in agent.fails(5, "register", "hf://org/absent")["message"]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[WebStandIn, str]]:
    """An https server, and the file of the authority that it is vouched for by."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    made = WebStandIn(context)
    made.files["/m/big.bin"] = content(50 * MIB + 5)
    yield made, str(trusted)
    made.close()


def test_a_file_of_a_web_server(cluster: Cluster, web: tuple[WebStandIn, str]) -> None:
    server, trusted = web
    data = server.files["/m/big.bin"]
    one, other = cluster.agents("one", "other", SSL_CERT_FILE=trusted)
    begun = [agent.begin("register", f"{server.url}/m/big.bin?a=geheim", "--json") for agent in (one, other)]
    done = [each.wait() for each in begun]
    assert [each.status for each in done] == [0, 0], [*map(str, done), one.log(), other.log()]
    assert server.sent == {"/m/big.bin": len(data)}
    assert done[0].json["manifest"] == done[1].json["manifest"]
    tag = server.etag("/m/big.bin").strip('"')
    assert done[0].json["revision"] == tag
    other.ok("get", f"big.bin:{tag}", cluster.path("got"))
    assert cluster.path("got").read_bytes() == data
    assert "geheim" not in one.log() + other.log() + "".join(each.out + each.err for each in done)
    assert any(headers.get("Range") for _, _, headers in server.asked)


def test_a_killed_agent_goes_on_from_what_came(cluster: Cluster, web: tuple[WebStandIn, str]) -> None:
    server, trusted = web
    data = server.files["/m/big.bin"]
    agent = cluster.agent("one", SSL_CERT_FILE=trusted)
    server.hold.clear()
    server.held_from = 40 * MIB
    running = agent.begin("register", f"{server.url}/m/big.bin", "--name", "big")
    eventually(lambda: len([name for name in agent.names() if name.startswith("origins/")]) == 2, "two sections")
    agent.kill()
    assert running.wait().status
    server.hold.set()
    agent.start()
    asked = len(server.asked)
    agent.ok("register", f"{server.url}/m/big.bin", "--name", "big")
    ranges = {headers.get("Range", "") for method, _, headers in server.asked[asked:] if method == "GET"}
    assert ranges == {f"bytes={32 * MIB}-{48 * MIB - 1}", f"bytes={48 * MIB}-{len(data) - 1}"}
    agent.ok("get", "big", cluster.path("got"))
    assert cluster.path("got").read_bytes() == data


def test_what_an_interrupt_leaves_is_gone_on_with_or_given_up_as_it_says(
    cluster: Cluster, web: tuple[WebStandIn, str]
) -> None:
    server, trusted = web
    agent = cluster.agent("one", SSL_CERT_FILE=trusted)
    server.hold.clear()
    server.held_from = 40 * MIB

    def interrupted() -> str:
        running = agent.begin("register", f"{server.url}/m/big.bin", "--name", "big")
        eventually(lambda: len([n for n in agent.names() if n.startswith("origins/")]) == 2, "two sections")
        running.send(signal.SIGINT)
        done = running.wait()
        assert done.status == 130, str(done)
        return done.err

    said = interrupted()
    advised = re.search(r"or 'mooncake .*?(unregister [^']*)'", said)
    assert advised is not None, said
    agent.ok(*shlex.split(advised[1]))
    assert not [name for name in agent.names() if name.startswith("origins/")]
    interrupted()
    asked = len(server.asked)
    server.hold.set()
    agent.ok("register", f"{server.url}/m/big.bin", "--name", "big")
    ranges = [headers.get("Range", "") for method, _, headers in server.asked[asked:] if method == "GET"]
    assert set(ranges) == {f"bytes={32 * MIB}-{48 * MIB - 1}", f"bytes={48 * MIB}-{50 * MIB + 4}"}


def test_a_directory_of_this_machine(cluster: Cluster) -> None:
    files = {"a.json": b"{}", "sub/m.bin": content(20 * MIB, 4), "no.gguf": b"x"}
    write_tree(cluster.path("slow"), files)
    agent = cluster.agent("one")
    made = agent.ok("register", f"file://{cluster.path('slow')}", "--exclude", "*.gguf")
    assert (made["name"], made["files"]) == ("slow", 2)
    agent.ok("get", "slow", cluster.path("got"))
    got = {path: data for path, data in tree(cluster.path("got")).items() if data is not None}
    assert got == {path: data for path, data in files.items() if path != "no.gguf"}


def test_slips_and_refusals_of_other_origins(cluster: Cluster, web: tuple[WebStandIn, str]) -> None:
    server, trusted = web
    agent = cluster.agent("one", SSL_CERT_FILE=trusted)
    assert "netrc" in agent.fails(2, "register", "https://me:geheim@h.example/x")["message"]
    assert "404" in agent.fails(3, "register", f"{server.url}/none")["message"]
    assert "no such file" in agent.fails(3, "register", f"file://{cluster.path('none')}")["message"]
    server.headers["Content-MD5"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    assert "md5" in agent.fails(4, "register", f"{server.url}/m/big.bin")["message"]
    alone = cluster.agent("alone")
    assert "ertificate" in alone.fails(5, "register", f"{server.url}/m/big.bin")["message"]


def test_an_object_of_an_s3_store(cluster: Cluster, tmp_path: Path) -> None:
    for package in ("s3fs", "moto", "flask"):
        pytest.importorskip(package, reason=f"NO S3: {package} is not installed")
    store, data = Moto(tmp_path), content(40 * MIB + 5, 6)
    try:
        store.put("bucket")
        store.put("bucket/m/big.bin", data)
        one, other = cluster.agents("one", "other", **store.environment)
        begun = [agent.begin("register", "s3://bucket/m/big.bin", "--json") for agent in (one, other)]
        done = [each.wait() for each in begun]
        assert [each.status for each in done] == [0, 0], [*map(str, done), one.log(), other.log()]
        assert store.sent("bucket/m/big.bin") == len(data)
        other.ok("get", "big.bin", cluster.path("got"))
        assert cluster.path("got").read_bytes() == data
        assert "no such object" in one.fails(3, "register", "s3://bucket/none")["message"]
        assert SECRET not in one.log() + other.log() + "".join(each.out + each.err for each in done)
    finally:
        store.kill()
