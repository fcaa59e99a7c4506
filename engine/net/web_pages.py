"""What a browser asks for on behalf of a web page, told apart from what programs ask for. Pure.

A server without a password that listens on loopback is its host's alone; but a browser on that host shows pages of
strangers. A page can send requests to loopback, whose answers it may not read (CORS), though their effects are done.
And it can read the answers, too, once its own host's name has come to mean loopback (DNS rebinding): then the browser
sends that name as ``Host``.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.net import addresses

_SAFE = frozenset({"GET", "HEAD"})
"""Methods that change nothing."""

_BY_THE_USER = frozenset({"none", "same-origin"})
"""What a browser says in Sec-Fetch-Site of an address that was typed, and of what its page then loads."""


def is_called_ours(host: str, *names: str) -> bool:
    """Whether a Host header means loopback whoever resolves it: an address, ``localhost``, or one of ``names``.

    The port does not matter: it may have been forwarded.
    """
    try:
        called, _ = addresses.parse(host, 80)
    except addresses.BadAddress:
        return False
    called = called.lower().rstrip(".")
    if called in {"localhost", *(name.lower().rstrip(".") for name in names)} or called.endswith(".localhost"):
        return True
    try:
        return addresses.as_ip(called).is_loopback
    except ValueError:
        return False


def is_a_pages(headers: Mapping[str, str]) -> bool:
    """Whether a browser asks for a page of the web; headers' names are found whatever their case."""
    return "Origin" in headers or headers.get("Sec-Fetch-Site", "none").lower() not in _BY_THE_USER


def refusal(method: str, headers: Mapping[str, str], *, loopback: bool, names: tuple[str, ...] = ()) -> str:
    """Why a server without a password does not answer; empty where it does.

    On ``loopback`` nothing is told to who calls us by a name that is not this host's; ``names`` are such names. What
    may change something is never done for a page.
    """
    host = headers.get("Host", "")
    if loopback and host and not is_called_ours(host, *names):
        return f"this server is not called {host!r}: it is on loopback; ask localhost, or its address"
    if method not in _SAFE and is_a_pages(headers):
        return "this server changes nothing for web pages"
    return ""
