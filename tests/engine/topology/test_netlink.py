from __future__ import annotations

import ipaddress
import socket
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.topology import Address, Route, netlink


def attribute(kind: int, value: bytes) -> bytes:
    padding = bytes(-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + value + padding


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body + bytes(-len(body) % 4)


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def new_address(index: int, prefix: int, *attributes: bytes, flags: int = 0) -> bytes:
    return message(20, struct.pack("=BBBBI", socket.AF_INET, prefix, flags, 0, index) + b"".join(attributes))


def new_route(prefix: int, *attributes: bytes, kind: int = 1, table: int = 254) -> bytes:
    return message(
        24, struct.pack("=BBBBBBBBI", socket.AF_INET, prefix, 0, 0, table, 0, 0, kind, 0) + b"".join(attributes)
    )


def test_addresses_by_interface() -> None:
    data = b"".join(
        [
            new_address(2, 24, attribute(1, packed("10.0.0.1")), attribute(2, packed("10.0.0.1"))),
            # Point to point: the first is the other end.
            new_address(3, 32, attribute(1, packed("10.9.9.9")), attribute(2, packed("10.0.0.7"))),
            new_address(2, 64, attribute(1, packed("fd00::2"))),
            # Tentative, by the wide flags that overrule the short ones.
            new_address(2, 64, attribute(1, packed("fd00::3")), attribute(8, struct.pack("=I", 0x40))),
            message(3, bytes(4)),
        ]
    )
    assert netlink.parse_addresses(data) == {
        2: (Address("10.0.0.1", 24), Address("fd00::2", 64)),
        3: (Address("10.0.0.7", 32),),
    }


def test_routes_of_the_main_table() -> None:
    hop = struct.pack("=HBBi", 16, 0, 0, 4) + attribute(5, packed("10.0.0.254"))
    out = attribute(4, struct.pack("=I", 2))
    data = b"".join(
        [
            new_route(24, attribute(1, packed("10.0.0.0")), out, attribute(6, struct.pack("=I", 100))),
            new_route(0, out, attribute(5, packed("10.0.0.254"))),
            new_route(8, attribute(1, packed("11.0.0.0")), attribute(9, hop + hop)),
            new_route(32, attribute(1, packed("10.0.0.1")), out, kind=2),
            new_route(32, attribute(1, packed("10.0.0.2")), out, table=255),
        ]
    )
    assert netlink.parse_routes(data) == (
        Route("10.0.0.0/24", 2, "", 100),
        Route("0.0.0.0/0", 2, "10.0.0.254", 0),
        Route("11.0.0.0/8", 4, "10.0.0.254", 0),
        Route("11.0.0.0/8", 4, "10.0.0.254", 0),
    )


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_left_out(data: bytes) -> None:
    netlink.parse_addresses(data)
    netlink.parse_routes(data)


@given(st.data())
def test_messages_cut_short_or_changed_are_left_out(data: st.DataObject) -> None:
    whole = bytearray(new_address(2, 24, attribute(1, packed("10.0.0.1"))) + new_route(0, attribute(9, bytes(12))))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    netlink.parse_addresses(cut)
    netlink.parse_routes(cut)


@pytest.mark.skipif(sys.platform != "linux", reason="rtnetlink is Linux's")
def test_the_kernel_knows_what_ip_says() -> None:
    try:
        shown = subprocess.run(["ip", "-o", "addr", "show"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no usable 'ip' here (apt-get install iproute2)")
    expected = set()
    for line in shown.stdout.splitlines():
        words = line.split()
        if not {"tentative", "deprecated", "dadfailed"} & set(words):
            index = int(words[0].rstrip(":"))
            expected.add((index, words[3] if "/" in words[3] else f"{words[3]}/{32 if words[2] == 'inet' else 128}"))
    found = {(index, str(each)) for index, many in netlink.addresses().items() for each in many}
    assert found == expected
    assert {route.index for route in netlink.routes()} <= {index for index, _ in socket.if_nameindex()}
