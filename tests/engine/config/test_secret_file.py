"""Secrets and passwords in files of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.secret_file import MAX_SECRET_BYTES, read_secret
from engine.errors import BadConfig


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secret"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n"])
@pytest.mark.parametrize("secret", [b"open sesame", b"\x00\xff \nsecond line", b"x" * MAX_SECRET_BYTES])
def test_a_secret_is_the_files_text_without_its_newline(file: Path, secret: bytes, end: bytes) -> None:
    file.write_bytes(secret + end)
    assert read_secret(file, "option --secret-file") == secret


@pytest.mark.parametrize("end", [b"x", b"\nmore", b"\r\nmore", b"\n" * 100 + b"more"])
def test_a_secret_that_is_too_long_is_refused_and_never_cut(file: Path, end: bytes) -> None:
    file.write_bytes(b"x" * MAX_SECRET_BYTES + end)
    with pytest.raises(BadConfig, match=r"^option --secret-file: secret file .* is longer than 4096 bytes$"):
        read_secret(file, "option --secret-file")


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n\n"])
def test_an_empty_secret_is_none(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(BadConfig, match=r"secret file .* is empty$"):
        read_secret(file, "o")


def test_a_secret_that_cannot_be_read(file: Path) -> None:
    for complaint in ("No such file", "Is a directory"):
        with pytest.raises(BadConfig, match=f"^o: secret file {file} cannot be read .{complaint}"):
            read_secret(file, "o")
        file.mkdir(exist_ok=True)
