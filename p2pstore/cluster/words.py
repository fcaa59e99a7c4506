"""What a getter says to a peer that grants, as lines of JSON: ``Opened``, ``Declined`` and ``Done``."""

from __future__ import annotations

import json

from p2pstore.swarm.events import Declined, Done, Opened, Word

MAX_WORD_BYTES = 256
"""Of one line."""

MAX_NUMBER = 1 << 53
"""Above all numbers of grants, and below what JSON has no whole numbers for."""


_decode = json.JSONDecoder().decode  # ``loads`` looks first what encoding it may be


def to_line(word: Word) -> bytes:
    """A word as a line: JSON, written by hand, since a chunk takes some of them."""
    if isinstance(word, Opened):
        return f'{{"under_way":{word.under_way}}}\n'.encode()
    kind = "done" if isinstance(word, Done) else "declined"
    full = "true" if word.full else "false"
    return f'{{"under_way":{word.under_way},"{kind}":{word.number},"full":{full}}}\n'.encode()


def from_line(line: bytes) -> Word:
    """The word on a line; its peer is left empty. Raises ``ValueError``."""
    try:
        value = _decode(line.decode())
    except RecursionError:
        value = None
    value = value if isinstance(value, dict) else {}
    under_way = _number(value.get("under_way"))
    full = value.get("full") is True
    if "done" in value:
        return Done("", _number(value["done"]), under_way, full)
    if "declined" in value:
        return Declined("", _number(value["declined"]), under_way, full)
    return Opened("", under_way)


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < MAX_NUMBER:
        raise ValueError("a number that is none")
    return value
