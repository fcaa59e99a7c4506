"""Host and port, together and apart."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.net import addresses
from engine.net.addresses import BadAddress, endpoints, is_host, join, parse, parse_place, parse_ports

PORTS = st.integers(1, 65535)
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,40}){0,4}", fullmatch=True)
ZONES = st.from_regex(r"[A-Za-z0-9_.@-]{1,15}", fullmatch=True)
SCOPED = st.builds("{}%{}".format, st.ip_addresses(v=6), ZONES)
HOSTS = st.one_of(NAMES, st.ip_addresses().map(str), SCOPED)


@given(HOSTS, PORTS)
def test_what_was_joined_is_parsed_again(host: str, port: int) -> None:
    assert parse(join(host, port)) == (host, port)
    assert endpoints(join(host, port), 1) == [join(host, port)]
    assert addresses.given(join(host, port)) == (host, port)


@given(HOSTS, PORTS)
def test_a_host_alone_has_the_default_port(host: str, port: int) -> None:
    assert parse(host, port) == (host, port)
    with pytest.raises(BadAddress):
        parse(host)


@given(st.text(max_size=30) | st.text(alphabet="a:[]1%/ .\0", max_size=12))
def test_any_text_is_an_address_or_bad(text: str) -> None:
    """Nothing but ``BadAddress`` is raised, and what is accepted can be put together again."""
    for default in (None, 7):
        with contextlib.suppress(BadAddress):
            host, port = parse(text, default, lowest_port=0)
            assert parse(join(host, port), lowest_port=0) == (host, port)


@pytest.mark.parametrize(
    "bad",
    [
        *(
            "",
            ":",
            ":7",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:-1",
            "host:1x",
            "host:+1",
            "host:1 ",
            "host: 1",
        ),
        *("host:\u0661", "host:\u00b2", "host:" + "1" * 5000, "a b:1", "a\0b:1", "a/b:1", "user@host:1", "a:b:1"),
        *("::1:80", "[::1]", "[::1]80", "[::1", "::1]:80", "[host]:1", "[]:1", "[::1%]:1", "[::1%a%b]:1", "[[::1]]:1"),
        *(".:1", "a..b:1", ".a:1", "a" * 64 + ":1", "a." * 127 + ":1", "\u00e9" * 64 + ":1"),
        *("[127.0.0.1]:1", "[::1::]:1", "[%eth0]:1", "host\n:1", "host:1\n"),
    ],
)
def test_what_is_no_host_and_port(bad: str) -> None:
    with pytest.raises(BadAddress, match="is no HOST:PORT"):
        parse(bad)
    with pytest.raises(UsageError, match="is no HOST:PORT"):
        addresses.given(bad)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("host", ("host", 5)),
        ("host:80", ("host", 80)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("::1", ("::1", 5)),
        ("::1:80", ("::1:80", 5)),
        ("[::1]", ("::1", 5)),
        ("[::1]:80", ("::1", 80)),
        ("fe80::1%eth0", ("fe80::1%eth0", 5)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("\u00e9toile:80", ("\u00e9toile", 80)),
    ],
)
def test_with_a_default_port(text: str, found: tuple[str, int]) -> None:
    assert parse(text, 5, lowest_port=0) == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a b", "'a b' is not an address; write HOST or HOST:PORT"),
        ("[::1", r"'\[::1' is not an address; write \[IPv6\]:PORT"),
        ("host:x", r"'x' in 'host:x' is not a port \(1 to 65535\)"),
        ("host:0", r"'0' in 'host:0' is not a port \(1 to 65535\)"),
        ("host:", r"'' in 'host:' is not a port"),
    ],
)
def test_why_a_text_is_no_address(text: str, reason: str) -> None:
    with pytest.raises(BadAddress, match=reason):
        parse(text, 5)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.0.0.0/24", ("10.0.0.0/24", 5)),
        ("10.0.0.0/24:80", ("10.0.0.0/24", 80)),
        ("[fd00::/64]:80", ("fd00::/64", 80)),
        ("fd00::/64", ("fd00::/64", 5)),
        ("eth0", ("eth0", 5)),
        ("eth0.100:0", ("eth0.100", 0)),
        ("[::1]:80", ("::1", 80)),
        ("host:80", ("host", 80)),
    ],
)
def test_places_to_listen(text: str, found: tuple[str, int]) -> None:
    assert parse_place(text, 5) == found == addresses.given_place(text, 5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.0.0.0/33", "is no place to listen; write ADDRESS, "),
        ("10/8", "is no place to listen"),
        ("fe80::1%eth0/64", "is no place to listen"),
        ("a/24", "is no place to listen"),
        ("10.0.0.1 10.0.0.2:7400", "is no place to listen"),
        ("10.0.0.0/24:x", "'x' in '10.0.0.0/24:x' is not a port"),
        ("eth0:65536", "'65536' in 'eth0:65536' is not a port"),
        ("", "is no place to listen"),
    ],
)
def test_what_is_no_place_to_listen(text: str, reason: str) -> None:
    with pytest.raises(BadAddress, match=reason):
        parse_place(text)
    with pytest.raises(UsageError, match=reason):
        addresses.given_place(text)


def test_a_network_is_no_peers_address() -> None:
    for text in ("10.0.0.0/24:80", "[fd00::/64]:80"):
        with pytest.raises(BadAddress):
            parse(text)


def test_an_address_is_ipv4_however_it_is_written() -> None:
    assert str(addresses.as_ip("::ffff:10.0.0.1")) == "10.0.0.1"
    assert str(addresses.as_ip("fe80::1%eth0")) == "fe80::1"
    assert addresses.is_ip("::1")
    assert not addresses.is_ip("eth0")


def test_endpoints_of_a_url() -> None:
    assert endpoints("a:1, b;[::1]:2,,a:1;[fe80::1%eth0]", 9) == ["a:1", "b:9", "[::1]:2", "[fe80::1%eth0]:9"]
    assert endpoints(" ,;", 9) == []
    for bad, reason in {
        "::1:2": "'::1:2' is no HOST:PORT",
        "b:x": "'b:x' is no HOST:PORT",
        "b:0": "0 is no port",
    }.items():
        with pytest.raises(BadAddress, match=reason):
            endpoints(f"a,{bad}", 9)


def test_hosts() -> None:
    assert all(map(is_host, ["a", "a.b-c_d", "127.0.0.1", "::1", "fe80::1%eth0"]))
    assert not any(map(is_host, ["", "a:1", "[::1]", "::1%", "a%eth0", "a b", "a@b"]))


@pytest.mark.parametrize(
    ("text", "host", "ports"),
    [
        ("eth0", "eth0", range(0)),
        ("10.0.0.1:0", "10.0.0.1", range(0)),
        ("10.0.0.1:7400", "10.0.0.1", range(7400, 7401)),
        ("10.0.0.1:7400-7420", "10.0.0.1", range(7400, 7421)),
        ("10.0.0.0/24:7400-7400", "10.0.0.0/24", range(7400, 7401)),
        ("[fd00::1]:1-65535", "fd00::1", range(1, 65536)),
        ("my-host", "my-host", range(0)),
        ("my-host-7", "my-host-7", range(0)),
        ("a-1:5", "a-1", range(5, 6)),
    ],
)
def test_a_place_with_a_choice_of_ports(text: str, host: str, ports: range) -> None:
    assert parse_ports(text) == addresses.given_ports(text) == (host, ports)


@pytest.mark.parametrize(
    "text", ["h:9-8", "h:0-5", "h:1-65536", "h:1-99999", "h:a-5", "h:5-", "h:-5", "h:1-2-3", ":1-2"]
)
def test_no_choice_of_ports(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_ports(text)
    with pytest.raises(UsageError):
        addresses.given_ports(text)
