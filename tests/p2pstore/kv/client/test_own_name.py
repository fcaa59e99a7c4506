"""Names of clients in a metadata server, which all clients of a host have in one."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator

import pytest

from engine.errors import PortTaken, UsageError
from engine.metadata.handshake import URL as P2PHANDSHAKE
from p2pstore.kv.client import own_name
from p2pstore.kv.client.compat import MooncakeDistributedStore
from p2pstore.kv.client.own_name import PORTS, OwnName
from tests.forking import in_child
from tests.interop.conftest import HttpMetadata
from tests.p2pstore.kv.client.conftest import MakeStore
from tests.p2pstore.kv.client.masters import AMaster

URL = "http://127.0.0.1:8080/metadata"


def test_it_has_a_port_that_nobody_else_has() -> None:
    names = [OwnName("localhost", URL) for _ in range(50)]
    assert len({name.text for name in names}) == 50
    for name in names:
        host, _, port = name.text.rpartition(":")
        assert (host, int(port) in PORTS) == ("localhost", True)
    for name in names:
        name.close()
        name.close()


def test_nobody_can_connect_to_it() -> None:
    name = OwnName("127.0.0.1", URL)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(name.text.rpartition(":")[2])), timeout=60)
    name.close()


@pytest.mark.parametrize(
    ("given", "metadata"), [("host:5", URL), ("host", P2PHANDSHAKE), ("host", f" {P2PHANDSHAKE} "), ("[::1]:5", URL)]
)
def test_what_needs_none_stays_as_it_is(given: str, metadata: str) -> None:
    name = OwnName(given, metadata)
    assert name.text == given
    name.close()


def test_an_ipv6_address_keeps_its_brackets() -> None:
    name = OwnName("[::1]", URL)
    assert name.text.startswith("[::1]:")
    name.close()


def test_where_no_port_is_free_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(own_name, "PORTS", range(port, port + 1))
        with pytest.raises(PortTaken, match=f"none of the ports up to {port} is free"):
            OwnName("127.0.0.1", URL)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES])
def test_what_else_keeps_it_from_a_port_is_said_at_once(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """To try 2,000 ports, and say that none is free, would name the wrong cause."""
    tried: list[int] = []

    def refused(port: int) -> socket.socket:
        tried.append(port)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(own_name, "_bound", refused)
    with pytest.raises(UsageError, match=f"no port can be held for the name 'h': {os.strerror(code)}") as caught:
        OwnName("h", URL)
    assert not isinstance(caught.value, PortTaken)
    assert len(tried) == 1


def test_a_host_without_ipv4_holds_one_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made = socket.socket

    def only_ipv6(family: int) -> socket.socket:
        if family == socket.AF_INET:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return made(family)

    if not socket.has_dualstack_ipv6():
        pytest.skip("NO TEST OF IPV6: it is not here")
    monkeypatch.setattr(own_name.socket, "socket", only_ipv6)
    name = OwnName("h", URL)
    assert name.text.startswith("h:")
    name.close()


def test_a_forked_child_does_not_keep_it() -> None:
    name = OwnName("127.0.0.1", URL)
    held = name._held
    assert held is not None
    descriptor = held.fileno()

    assert stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    assert not in_child(lambda: stat.S_ISSOCK(os.fstat(descriptor).st_mode))
    assert held.getsockname()
    name.close()


@pytest.fixture
def url() -> Iterator[str]:
    """Of a metadata server, which outlives the clients of the test."""
    server = HttpMetadata()
    yield server.url
    server.close()


def test_clients_of_one_host_have_names_of_their_own_in_a_metadata_server(
    own_master: AMaster, url: str, make_store: MakeStore
) -> None:
    """Each puts into the other's memory, and gets it; the compatible class is asked for its name as upstream's is."""
    address = own_master.address
    one, other = (make_store(address, hostname="localhost", metadata=url, neighbours=False) for _ in range(2))
    third = MooncakeDistributedStore()
    assert third.setup("localhost", url, 16 << 20, 16 << 20, "tcp", "", address) == 0, third.last_error
    names = [one._client.name, other._client.name, third.get_hostname()]
    assert len(set(names)) == 3
    assert all(name.startswith("localhost:") and int(name.split(":")[1]) in PORTS for name in names)
    for owner in names:
        assert one.put(f"in {owner}", owner.encode(), prefer=[owner])
        assert other.get(f"in {owner}") == third.get(f"in {owner}") == owner.encode()
        assert [each.place.endpoint for each in other.replicas(f"in {owner}").replicas] == [owner]
    third.close()


def test_two_clients_that_were_given_one_name_get_no_wrong_bytes(
    own_master: AMaster, url: str, make_store: MakeStore
) -> None:
    """The metadata server leads to the later one, which refuses what lies with the other: that is put elsewhere."""
    one, other = (
        make_store(own_master.address, hostname="127.0.0.1:17000", metadata=url, neighbours=False) for _ in range(2)
    )
    third = make_store(own_master.address, hostname="127.0.0.1:17001", metadata=url, neighbours=False)
    assert one._client.name == other._client.name
    for number in range(20):
        key, value = f"k{number}", bytes([number]) * 1000
        assert third.put(key, value)
        assert third.get(key) == value
    assert not third.failures
