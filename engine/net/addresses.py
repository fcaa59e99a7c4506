"""Host and port as one text, taken apart and put together. Pure.

::

    name:80    127.0.0.1:80    [::1]:80    [fe80::1%eth0]:80

``parse`` raises ``BadAddress``, which says what is wrong with the text and not whose fault it is: a setting's, a peer's
or the caller's. For the last there is ``given``.
"""

from __future__ import annotations

import ipaddress
import re

from engine.errors import UsageError

MAX_PORT = 65535
MAX_NAME = 253
"""Characters of a host's name, as DNS has it."""

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
    host, port = _apart(text)
    if host is None or (port is None and default_port is None):
        raise BadAddress(_no_address(text, short=default_port is not None))
    if port is None:
        return host, default_port or 0
    if not _PORT.fullmatch(port) or not lowest_port <= int(port) <= MAX_PORT:
        shown = f"{port!r} in {text!r} is not a port ({lowest_port} to {MAX_PORT})"
        raise BadAddress(_no_address(text, short=False) if default_port is None else shown, port)
    return host, int(port)


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


def _can_be_looked_up(name: str) -> bool:
    # The resolver raises no OSError for a label that is empty or too long, and those who connect expect nothing else.
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def _apart(text: str) -> tuple[str | None, str | None]:
    """The host, or None for what cannot be one, and the text of the port, or None where there is none."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        good = bracket and ":" in host and is_host(host) and rest[:1] in {"", ":"}
        return (host if good else None), (rest[1:] if rest else None)
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return (host if is_host(host) else None), port
    return (text if is_host(text) else None), None


def _no_address(text: str, *, short: bool) -> str:
    if not short:
        return f"{text!r} is no HOST:PORT"
    return f"{text!r} is not an address; write {'[IPv6]:PORT' if text.startswith('[') else 'HOST or HOST:PORT'}"
