"""Sizes in bytes and rates: how people write them, and how they are shown."""

from __future__ import annotations

import re

_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_BITS = re.compile(
    r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgtKMGT]?)(?:(?i:bit(?:/s)?)|bps|BPS|(?<![kmgt])b\s*/s|(?<=[KMGT])b)\s*"
)
"""Bits a second. A small b is a bit, as in ``100Mb/s`` or ``5Gb``, and a capital one a byte, as in ``100MBps``."""
_PER_SECOND = re.compile(r"\s*(/s|(?<=B)ps)\s*\Z")
_EITHER = re.compile(r"[^a-z]*[kmgt]b\s*(/s)?\s*")
"""What some write for bytes, and some for bits: ``100mb/s``."""
BYTE_BITS = 8
_PREFIXES = "kmgtp"
_SHOWN = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def parse_size(text: str) -> int:
    """Bytes from ``4194304``, ``4MiB``, ``4m`` (both binary) or ``4MB`` (decimal); a fraction is allowed before a unit.

    Raises:
        ValueError: not a size, or not a whole number of bytes; the message says which.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write it like 4MiB, 4m or 4194304")
    number, unit = str(match[1]), str(match[2])
    factor = _factor(unit.lower())
    if factor is None:
        raise ValueError(f"{text!r} has the unknown unit {unit!r}; use KiB, MiB, GiB or KB, MB, GB")
    if "." not in number:
        return int(number) * factor
    whole, fraction = number.split(".")
    scale: int = 10 ** len(fraction)
    size, rest = divmod(int(whole + fraction) * factor, scale)
    if rest:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return size


def parse_rate(text: str) -> int:
    """Bytes a second from ``500MB/s``, ``500MBps`` or ``500MB``, or from bits as ``5Gbit``, ``5Gb/s`` or ``5Gbps``.

    Bits are counted in powers of ten. 0 is no limit.

    Raises:
        ValueError: not a rate, or one of less than a byte a second; the message says which.
    """
    if _EITHER.fullmatch(text):
        raise ValueError(f"{text!r} may be bits or bytes; write it like 500MB/s or 5Gbit")
    bits = _bits(text)
    if bits is None:
        try:
            return parse_size(_PER_SECOND.sub("", text))
        except ValueError:
            raise ValueError(f"{text!r} is no rate; write it like 500MB/s or 5Gbit, or 0 for no limit") from None
    if 0 < bits < BYTE_BITS:
        raise ValueError(f"{text!r} is less than a byte a second; 0 is no limit")
    return int(bits / BYTE_BITS)


def parse_link_rate(text: str) -> float:
    """Bytes a second from a network card's rate, in bits as ``200mbit`` or ``10Gbps`` (decimal), or as ``25MB/s``.

    Raises:
        ValueError: not a rate, or none that anything could pass; the message says which.
    """
    bits = _bits(text)
    try:
        rate = float(parse_rate(text)) if bits is None else bits / BYTE_BITS
    except ValueError:
        raise ValueError(f"{text!r} is no rate of a network card; write it like 200mbit, 10gbit or 25MB/s") from None
    if rate <= 0:
        raise ValueError(f"{text!r} lets nothing pass")
    return rate


def _bits(text: str) -> float | None:
    """Bits a second; None for what is no number of bits."""
    match = _BITS.fullmatch(text)
    return float(match[1]) * 1000 ** " kmgt".index(match[2].lower() or " ") if match else None


def _factor(unit: str) -> int | None:
    if unit in {"", "b"}:
        return 1
    power = _PREFIXES.find(unit[0]) + 1
    base = {"": 1024, "ib": 1024, "b": 1000}.get(unit[1:])
    if not power or base is None:
        return None
    return int(base**power)


def format_size(size: float) -> str:
    """``size`` bytes with the largest binary unit that leaves a number of at least 1: ``512 B``, ``4.0 MiB``."""
    value = float(size)
    for unit in _SHOWN[:-1]:
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_SHOWN[-1]}"


def format_seconds(seconds: float) -> str:
    """A duration in its two largest units: ``0.04 s``, ``2.5 s``, ``3 min 5 s``, ``2 h 4 min``, ``3 d 1 h``."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for unit, span, below, step in (("min", 60, "s", 1), ("h", 3600, "min", 60)):
        if whole < span * (60 if unit == "min" else 24):
            return f"{whole // span} {unit} {whole % span // step} {below}"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
