"""Host and port as one text, taken apart and put together. Pure.

::

    name:80    127.0.0.1:80    [::1]:80    [fe80::1%eth0]:80
    eth0:80    10.0.0.0/24:80    [fd00::/64]:80                  (where somebody listens: ``parse_place``)
    eth0:7400-7420                                               (with a choice of ports: ``parse_ports``)

``parse`` raises ``BadAddress``, which says what is wrong with the text and not whose fault it is: a setting's, a peer's
or the caller's. For the last there is ``given``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from engine.errors import UsageError

MAX_PORT = 65535
LOOPBACK, LOOPBACK_6 = "127.0.0.1", "::1"

WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
"""Hosts that stand for all of a machine's addresses."""

MAX_NAME = 253
"""Characters of a host's name, as DNS has it."""

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAME = re.compile(r"[\w.-]+")
_ZONE = re.compile(r"[^\s\0/%\[\]]+")
_PORT = re.compile(r"[0-9]{1,5}")


class BadAddress(ValueError):
    """A text is no address. ``port`` is what stands in the port's place, where it is that which is wrong."""

    def __init__(self, detail: str, port: str = "") -> None:
        super().__init__(detail)
        self.port = port


def parse(text: str, default_port: int | None = None, *, lowest_port: int = 1) -> tuple[str, int]:
    """The host, without brackets, and the port of ``HOST:PORT`` or ``[IPV6]:PORT``.

    With a ``default_port``, ``HOST``, ``[IPV6]`` and ``IPV6`` will do. Port 0 is good where ``lowest_port`` is 0: where
    somebody will listen, it is any free one. Raises ``BadAddress``.
    """
    host, port = _apart(text, is_host)
    if host is None or (port is None and default_port is None):
        raise BadAddress(_no_address(text, short=default_port is not None))
    if port is None:
        return host, default_port or 0
    if not _is_port(port, lowest_port):
        shown = _no_port(text, port, lowest_port)
        raise BadAddress(_no_address(text, short=False) if default_port is None else shown, port)
    return host, int(port)


def parse_place(text: str, default_port: int = 0) -> tuple[str, int]:
    """Where somebody is to listen: as ``parse``, but the host may be an interface's name or a network, too.

    Port 0 is good: it is any free one. Which of this host's addresses it means, ``engine.net.listening`` finds out.
    Raises ``BadAddress``.
    """
    host, port = _apart(text, is_place)
    if host is None:
        forms = "ADDRESS, [IPv6], INTERFACE or NETWORK/PREFIX, and :PORT behind it if you like"
        raise BadAddress(f"{text!r} is no place to listen; write {forms}")
    if port is None:
        return host, default_port
    if not _is_port(port, 0):
        raise BadAddress(_no_port(text, port, 0), port)
    return host, int(port)


def parse_ports(text: str) -> tuple[str, range]:
    """As ``parse_place``, with the ports among which somebody may choose: ``FIRST-LAST``, a single one, or none."""
    first, dash, last = text.rpartition("-")
    if not dash or not _PORT.fullmatch(last) or not _PORT.fullmatch(first.rpartition(":")[2]):
        host, port = parse_place(text)
        return host, range(port, port + 1) if port else range(0)
    host, low = parse_place(first)
    if not 0 < low <= int(last) <= MAX_PORT:
        raise BadAddress(f"{low}-{last} in {text!r} are no ports (1 to {MAX_PORT}, the lower one first)", last)
    return host, range(low, int(last) + 1)


def given_ports(text: str) -> tuple[str, range]:
    """``parse_ports`` for what our caller says. Raises ``UsageError``."""
    try:
        return parse_ports(text)
    except BadAddress as error:
        raise UsageError(detail=str(error)) from None


def given_place(text: str, default_port: int = 0) -> tuple[str, int]:
    """``parse_place`` for what our caller says. Raises ``UsageError``."""
    try:
        return parse_place(text, default_port)
    except BadAddress as error:
        raise UsageError(detail=str(error)) from None


def given(text: str, default_port: int | None = None) -> tuple[str, int]:
    """``parse`` for what our caller says. Raises ``UsageError``."""
    try:
        return parse(text, default_port)
    except BadAddress as error:
        raise UsageError(detail=str(error)) from None


def join(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def endpoints(text: str, default_port: int) -> list[str]:
    """The ``HOST:PORT``, each once, of a URL's ``A:1,B``; ``;`` separates too. Raises ``BadAddress``.

    An IPv6 address stands in brackets: ``::1:80`` is one as a whole, and whoever writes it means a port.
    """
    found = []
    for part in filter(None, (each.strip() for each in re.split("[,;]", text))):
        try:
            host, port = parse(part, default_port)
        except BadAddress as error:
            shown = f"{error.port} is no port" if _PORT.fullmatch(error.port) else _no_address(part, short=False)
            raise BadAddress(shown, error.port) from None
        if ":" in host and not part.startswith("["):
            raise BadAddress(_no_address(part, short=False))
        found.append(join(host, port))
    return list(dict.fromkeys(found))


def is_host(text: str) -> bool:
    """Whether it can be a host: a name, an IPv4 address, or an IPv6 one without brackets."""
    if ":" not in text:
        return len(text) <= MAX_NAME and bool(_NAME.fullmatch(text)) and _can_be_looked_up(text)
    address, percent, zone = text.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or bool(_ZONE.fullmatch(zone))


def is_place(text: str) -> bool:
    """Whether it can be listened on: a host, the name of an interface (which looks like a host's), or a network."""
    return is_host(text) or network(text) is not None


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """The network that ``ADDRESS/PREFIX`` lies in, or None where the text is no such thing."""
    if "/" not in text or "%" in text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def is_ip(text: str) -> bool:
    """Whether it is an address, and no name."""
    try:
        as_ip(text)
    except ValueError:
        return False
    return True


def as_ip(text: str) -> Ip:
    """An address as such, without its zone; an IPv4 one that is written as IPv6 is IPv4. Raises ``ValueError``."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _can_be_looked_up(name: str) -> bool:
    # The resolver raises no OSError for a label that is empty or too long, and those who connect expect nothing else.
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def _apart(text: str, is_good: Callable[[str], bool]) -> tuple[str | None, str | None]:
    """The host, or None for what cannot be one, and the text of the port, or None where there is none."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        good = bracket and ":" in host and is_good(host) and rest[:1] in {"", ":"}
        return (host if good else None), (rest[1:] if rest else None)
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return (host if is_good(host) else None), port
    return (text if is_good(text) else None), None


def _is_port(text: str, lowest: int) -> bool:
    return bool(_PORT.fullmatch(text)) and lowest <= int(text) <= MAX_PORT


def _no_port(text: str, port: str, lowest: int) -> str:
    return f"{port!r} in {text!r} is not a port ({lowest} to {MAX_PORT})"


def _no_address(text: str, *, short: bool) -> str:
    if not short:
        return f"{text!r} is no HOST:PORT"
    return f"{text!r} is not an address; write {'[IPv6]:PORT' if text.startswith('[') else 'HOST or HOST:PORT'}"
