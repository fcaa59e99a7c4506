from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.objects.units import format_seconds, format_size, parse_link_rate, parse_rate, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("17b", 17),
        ("4MiB", 4 << 20),
        ("4m", 4 << 20),
        ("4M", 4 << 20),
        (" 4 MB ", 4_000_000),
        ("1g", 1 << 30),
        ("1.5GiB", 3 << 29),
        ("2t", 2 << 40),
        ("0.5k", 512),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "1.2", "4 Mi B", "4mm", "0x10", "1e6", "4QiB", "٤MiB", "1_000"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a|unknown unit"):
        parse_size(text)


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_size(text) >= 0


@given(st.integers(0, 1 << 60))
def test_plain_bytes_are_themselves(size: int) -> None:
    assert parse_size(str(size)) == size


def test_sizes_are_shown() -> None:
    shown = [format_size(size) for size in (0, 1023, 1024, 4 << 20, 3 << 29, 1 << 60)]
    assert shown == ["0 B", "1023 B", "1.0 KiB", "4.0 MiB", "1.5 GiB", "1024.0 PiB"]


def test_durations_are_shown() -> None:
    shown = [format_seconds(s) for s in (0.04, 9.94, 10, 59.4, 59.6, 185, 3600, 7440, 90000)]
    assert shown == ["0.04 s", "9.9 s", "10 s", "59 s", "1 min 0 s", "3 min 5 s", "1 h 0 min", "2 h 4 min", "1 d 1 h"]


@pytest.mark.parametrize(
    ("text", "rate"),
    [("200mbit", 25e6), ("10Gbit/s", 1.25e9), ("8bit", 1.0), ("1.5kbit", 187.5), ("25MB/s", 25e6), ("1MiB", 1 << 20)],
)
def test_link_rates(text: str, rate: float) -> None:
    assert parse_link_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("0", 0),
        ("0bit", 0),
        ("500MB/s", 500_000_000),
        ("4m", 4 << 20),
        ("5Gbit", 625_000_000),
        ("5 gbit/s", 625_000_000),
        ("100Mbps", 12_500_000),
        ("100mbps", 12_500_000),
        ("100Mb/s", 12_500_000),
        ("400 Gb/s", 50_000_000_000),
        ("8b/s", 1),
        ("100Mb", 12_500_000),
        ("5Gb", 625_000_000),
        ("1 Mb /s", 125_000),
        ("100MB /s", 100_000_000),
        ("100MB", 100_000_000),
        ("100b", 100),
        ("100MBps", 100_000_000),
        ("100MB/s ", 100_000_000),
        ("8B/s", 8),
        ("1MiBps", 1 << 20),
        ("12bit", 1),
    ],
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is no rate; write it like 500MB/s or 5Gbit, or 0 for no limit"),
        ("5Gb it", "is no rate"),
        ("7bit", "less than a byte"),
        ("1 pigeon/s", "is no rate"),
        ("1.5", "is no rate"),
        ("100mb", "'100mb' may be bits or bytes"),
        ("5/sMB", "is no rate"),
        ("500mb/s", "'500mb/s' may be bits or bytes; write it like 500MB/s or 5Gbit"),
    ],
)
def test_what_is_no_rate(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_rate(text)


@pytest.mark.parametrize("text", ["", "bit", "0mbit", "0", "-1mbit", "5 pigeons", "1xbit"])
def test_what_is_no_link_rate(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_link_rate(text)
