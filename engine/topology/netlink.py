"""Addresses and routes as the kernel tells them over rtnetlink(7): all of them, without a library or another program.

The messages are parsed apart from the socket. ``ioctl`` would tell one IPv4 address an interface, and nothing of IPv6.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Iterator
from struct import Struct, error

from engine.topology.model import Address, Route

log = logging.getLogger(__name__)

TIMEOUT = 2.0
"""Seconds for one answer; the kernel needs milliseconds."""

MAX_DATAGRAM = 1 << 20
"""Bytes of one answer; the kernel sends at most 32 KiB."""

MAX_ROUTES = 100_000
"""Routes that are read; a machine with more is a router, whose table says nothing of its cards."""

_HEADER = Struct("=IHHII")
_ADDRESS = Struct("=BBBBI")
_ROUTE = Struct("=BBBBBBBBI")
_ATTRIBUTE = Struct("=HH")
_HOP = Struct("=HBBi")
_U32 = Struct("=I")

_DONE, _ERROR = 3, 2
_NEW_ADDRESS, _GET_ADDRESS = 20, 22
_NEW_ROUTE, _GET_ROUTE = 24, 26
_REQUEST_DUMP = 0x301
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_TABLE = 1, 4, 5, 6, 9, 15
_UNICAST = 1
_MAIN_TABLE = 254
_UNUSABLE = 0x08 | 0x20 | 0x40
"""Flags of an address that is not to be used: duplicate, deprecated, tentative."""
_ATTRIBUTE_TYPE = 0x3FFF
"""The bits of an attribute's type that are no flags."""


def addresses() -> dict[int, tuple[Address, ...]]:
    """Each interface's addresses by its index; nothing where the kernel does not answer."""
    return parse_addresses(_ask(_GET_ADDRESS))


def routes() -> tuple[Route, ...]:
    """The unicast routes of the main table; nothing where the kernel does not answer."""
    return parse_routes(_ask(_GET_ROUTE))


def parse_addresses(data: bytes) -> dict[int, tuple[Address, ...]]:
    """The usable addresses in RTM_NEWADDR messages, by interface. Pure; what is cut short is left out."""
    found: dict[int, list[Address]] = {}
    for body in _messages(data, _NEW_ADDRESS, _ADDRESS.size):
        _, prefix, flags, _, index = _ADDRESS.unpack_from(body)
        attributes = dict(_attributes(body[_ADDRESS.size :]))
        # On a point-to-point link IFA_ADDRESS is the other end.
        own = _text(attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b""))
        wide = attributes.get(_IFA_FLAGS, b"")
        flags = _U32.unpack(wide)[0] if len(wide) == _U32.size else flags
        if own and not flags & _UNUSABLE:
            found.setdefault(index, []).append(Address(own, prefix))
    return {index: tuple(each) for index, each in found.items()}


def parse_routes(data: bytes) -> tuple[Route, ...]:
    """The unicast routes of the main table in RTM_NEWROUTE messages. Pure; what is cut short is left out."""
    found: list[Route] = []
    for body in _messages(data, _NEW_ROUTE, _ROUTE.size):
        family, prefix, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
        attributes = dict(_attributes(body[_ROUTE.size :]))
        table = _number(attributes, _RTA_TABLE, table)
        if kind != _UNICAST or table != _MAIN_TABLE or family not in {socket.AF_INET, socket.AF_INET6}:
            continue
        anywhere = "0.0.0.0" if family == socket.AF_INET else "::"  # noqa: S104 - a destination, not bound to
        destination = f"{_text(attributes.get(_RTA_DST, b'')) or anywhere}/{prefix}"
        metric = _number(attributes, _RTA_PRIORITY, 0)
        hops = list(_hops(attributes.get(_RTA_MULTIPATH, b"")))
        if _RTA_OIF in attributes:
            hops.append((_number(attributes, _RTA_OIF, 0), attributes))
        found += [Route(destination, index, _text(more.get(_RTA_GATEWAY, b"")), metric) for index, more in hops]
        if len(found) > MAX_ROUTES:
            return ()
    return tuple(found)


def _messages(data: bytes, wanted: int, least: int) -> Iterator[bytes]:
    """The bodies of the messages of one type, each at least ``least`` bytes long."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        if kind == wanted and length >= _HEADER.size + least:
            yield data[at + _HEADER.size : at + length]
        at += _aligned(length)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            return
        yield kind & _ATTRIBUTE_TYPE, data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)


def _hops(data: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    """The interface and attributes of each hop of a multipath route."""
    at = 0
    while at + _HOP.size <= len(data):
        length, _, _, index = _HOP.unpack_from(data, at)
        if length < _HOP.size or at + length > len(data):
            return
        yield index, dict(_attributes(data[at + _HOP.size : at + length]))
        at += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _number(attributes: dict[int, bytes], kind: int, default: int) -> int:
    try:
        return int(_U32.unpack(attributes[kind])[0]) if kind in attributes else default
    except error:
        return default


def _text(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed)) if len(packed) in {4, 16} else ""


def _ask(what: int) -> bytes:
    """The messages of one dump, end to end; empty where there is no such thing here."""
    answer = bytearray()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            sock.settimeout(TIMEOUT)
            body = bytes(_ROUTE.size)
            sock.sendall(_HEADER.pack(_HEADER.size + len(body), what, _REQUEST_DUMP, 1, 0) + body)
            while True:
                data = sock.recv(MAX_DATAGRAM)
                answer += data
                if not data or _ends(data):
                    return bytes(answer)
    except OSError as problem:
        log.debug("the kernel's addresses and routes cannot be read: %s", problem)
        return b""


def _ends(data: bytes) -> bool:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if kind in {_DONE, _ERROR} or length < _HEADER.size:
            return True
        at += _aligned(length)
    return False
