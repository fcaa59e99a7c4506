"""Which address others are told, and whether they can do anything with it.

The rule: an address that was given (to be told, or to be listened on); else, for whoever listens on all addresses, the
one from which this host reaches the metadata server, which others reach, too. Where that server is on this very host
and so tells nothing, the one towards the default route, or the only one that there is. Else nothing is guessed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Sequence

from engine.errors import NoSuchAddress
from engine.net import addresses
from engine.net.addresses import WILDCARDS, Ip, as_ip, is_ip
from engine.net.listening import MAX_SHOWN, Own, loopback, own_addresses
from engine.net.sockets import is_loopback

Server = tuple[str, int]
"""Host and port of a metadata server."""

Towards = Callable[[Server, int], str]
"""The local address from which a server is reached, by address family; empty where there is none."""

DEFAULT_ROUTE = {socket.AF_INET: ("192.0.2.1", 9), socket.AF_INET6: ("2001:db8::1", 9)}
"""Addresses for documentation, which nobody has: only a default route leads there."""


def published(host: str, servers: Sequence[Server] = ()) -> str:
    """The address that others are told where ``host`` is listened on. Nothing is sent; names may be looked up.

    Raises ``NoSuchAddress`` where all addresses are listened on, and it is not plain which is meant.
    """
    if host not in WILDCARDS:
        return host
    return told(host, servers, own_addresses(), local_address) or loopback()


def told(host: str, servers: Sequence[Server], own: Sequence[Own], towards: Towards) -> str:
    """``published`` for a wildcard; empty where this host has nothing but its loopback. Raises ``NoSuchAddress``."""
    # What listens on IPv6's wildcard takes IPv4, too.
    families = (socket.AF_INET,) if host == WILDCARDS[1] else (socket.AF_INET, socket.AF_INET6)
    versions = {4 if family == socket.AF_INET else 6 for family in families}
    sources = [towards(server, family) for server in servers for family in families]
    for source in sources:
        if source and not as_ip(source).is_loopback and not as_ip(source).is_link_local:
            return source
    if servers and not any(sources):
        shown = ", ".join(addresses.join(*server) for server in servers)
        way = "no IPv4 way" if len(families) == 1 else "no way"
        problem = f"which address others reach cannot be told, since there is {way} from here to {shown}"
        raise NoSuchAddress(address=host or "::", detail=problem)
    for family in families:
        outward = towards(DEFAULT_ROUTE[family], family)
        if outward and not as_ip(outward).is_loopback:
            return outward
    found = [each for each in own if each.reachable and not each.bridge and each.ip.version in versions]
    first = [each for each in found if each.ip.version == 4] or found
    if len(first) > 1:
        problem = f"it is not plain which address others reach: {', '.join(map(str, first))}; name one of them"
        raise NoSuchAddress(address=host or "::", detail=problem)
    return first[0].address if first else ""


def local_address(server: Server, family: int) -> str:
    """The address from which this host would reach a server; empty where it has no way there. Sends nothing."""
    with contextlib.suppress(OSError, UnicodeError):
        for entry in socket.getaddrinfo(*server, family=family, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(entry[0], socket.SOCK_DGRAM) as probe:
                probe.connect(entry[4])
                return str(probe.getsockname()[0])
    return ""


def on_this_host(servers: Sequence[Server]) -> bool:
    """Whether only processes of this host reach the metadata servers: then the loopback is as good as any address."""
    return all(is_loopback(host) for host, _ in servers)


def doubts(address: str, host: str, servers: Sequence[Server] = ()) -> list[str]:
    """Why others may not reach ``address``, which they are told, where ``host`` is listened on: a sentence each."""
    towards = [local_address(server, 0) for server in servers]
    return _doubts(address, host, own_addresses(), local=on_this_host(servers), towards=towards)


def _doubts(address: str, host: str, own: Sequence[Own], *, local: bool, towards: Sequence[str]) -> list[str]:
    """``doubts`` of what was found out: ``towards`` are the addresses from which the metadata servers are reached."""
    others = [str(each) for each in own if each.reachable and not each.bridge]
    try:
        ip = as_ip(address)
    except ValueError:
        ip = None
    if is_loopback(host):
        though = "" if host == address else f", though others are told {address}"
        listens = f"this node listens on {host}, which is loopback{though}"
        found = "" if local and not though else f"{listens}: no other machine can get from it"
    elif ip is None:
        found = _of_a_name(address)
    elif ip.is_loopback and local and not others:
        found = ""
    else:
        mine = [each for each in own if each.ip == ip]
        found = _of_its_kind(address, ip) or _of_its_place(address, host, mine, own) or _of_a_bridge(mine, towards)
    instead = f"; this host has {', '.join(others[:MAX_SHOWN])}" if others else ""
    return [found + instead] if found else []


def _of_its_kind(address: str, ip: Ip) -> str:
    if ip.is_unspecified:
        return f"others are told {address}, which stands for all addresses: nobody can connect to it"
    if ip.is_multicast:
        return f"others are told {address}, which is a multicast address: nobody can connect to it"
    if ip.is_loopback:
        return f"others are told {address}, which is each machine's own loopback"
    if ip.is_link_local:
        return f"others are told {address}, which is link-local: it means nothing beyond one link"
    return ""


def _of_its_place(address: str, host: str, mine: Sequence[Own], own: Sequence[Own]) -> str:
    if own and not mine:
        return f"others are told {address}, which no interface of this host has: something must forward it here"
    if host == WILDCARDS[1] and ":" in address:
        return f"others are told {address}, and nobody listens there: {host} takes IPv4 alone"
    if host not in WILDCARDS and is_ip(host) and as_ip(host) != as_ip(address):
        return f"others are told {address}, and nobody listens there: this node listens on {host}"
    return ""


def _of_a_bridge(mine: Sequence[Own], towards: Sequence[str]) -> str:
    """Each host has the same networks behind the bridges that container engines make, unless etcd is there, too."""
    if not any(each.bridge for each in mine) or any(_within(source, mine) for source in towards if source):
        return ""
    return f"others are told {mine[0].address}, of the bridge {mine[0].interface}: other hosts have the same one"


def _of_a_name(name: str) -> str:
    if name.rstrip(".").lower() == "localhost":
        return f"others are told {name}, which is each machine's own loopback"
    try:
        socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return f"others are told the name {name!r}, which does not resolve here"
    return ""


def _within(source: str, mine: Sequence[Own]) -> bool:
    ip = as_ip(source)
    return any(ip in ipaddress.ip_network(f"{each.address}/{each.prefix}", strict=False) for each in mine)
