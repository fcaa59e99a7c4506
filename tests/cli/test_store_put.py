from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mooncake_cli.commands import store_put
from p2pstore.errors import UsageError
from p2pstore.kv.errors import FileChanged
from tests.cli.conftest import Mooncake
from tests.cli.store_processes import Pool
from tests.ports import closed_port


def test_a_file_and_no_second_one(mooncake: Mooncake, pool: Pool, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_bytes(os.urandom(100_000))
    done = mooncake("store", "put", "put/file", str(file), **pool.variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "put 97.7 KiB under put/file\n")
    done = mooncake("store", "put", "put/file", str(file), **pool.variables)
    assert done.returncode == 7
    assert "there is a value under 'put/file' already" in done.stderr
    file.write_bytes(b"another")
    done = mooncake("store", "put", "put/file", str(file), "--replace", "--json", **pool.variables)
    assert json.loads(done.stdout) == {"key": "put/file", "size": 7, "replicas": 1}
    assert mooncake("store", "get", "put/file", "-", **pool.variables).stdout == "another"


def test_standard_input(environment: dict[str, str], pool: Pool) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mooncake_cli", "store", "put", "put/input", "-", "-q"],
        env={**environment, **pool.variables}, input=b"bytes\0\xff", capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == b"put/input\n"


@pytest.mark.parametrize("opening", ["<&-", "0>/dev/null"])
def test_standard_input_that_cannot_be_read(environment: dict[str, str], pool: Pool, opening: str) -> None:
    command = f"'{sys.executable}' -m mooncake_cli store put put/unreadable - {opening}"
    done = subprocess.run(
        ["/bin/sh", "-c", command], env={**environment, **pool.variables}, capture_output=True, timeout=60, check=False,
        text=True,
    )  # fmt: skip
    assert done.returncode == 8
    assert done.stderr.startswith("error: standard input: ")


def test_what_cannot_be_put(mooncake: Mooncake, pool: Pool, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    done = mooncake("store", "put", "put/empty", str(empty), **pool.variables)
    assert done.returncode == 2
    assert "is empty, and the store has no empty values" in done.stderr
    assert mooncake("store", "put", "put/x", str(tmp_path / "nothing"), **pool.variables).returncode == 3
    assert mooncake("store", "put", "put/x", str(tmp_path), **pool.variables).returncode == 8
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(100 << 20)
    done = mooncake("store", "put", "put/large", str(large), **pool.variables)
    assert done.returncode == 8
    assert "no segment has room for the value" in done.stderr
    assert mooncake("store", "info", "put/large", **pool.variables).returncode == 3


def test_a_device_is_no_value(mooncake: Mooncake, pool: Pool) -> None:
    done = mooncake("store", "put", "put/device", "/dev/zero", **pool.variables)
    assert done.returncode == 2
    assert "/dev/zero is no regular file; use - and redirect standard input" in done.stderr


def test_what_never_ends_is_given_up_before_the_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_put, "memory_available", lambda: 64 << 20)
    with open("/dev/zero", "rb") as stream, pytest.raises(UsageError) as caught:
        store_put._read(stream, "standard input")
    assert str(caught.value) == "standard input does not fit into memory here, of which 64.0 MiB are free"


def test_a_file_that_changes_while_it_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_bytes(b"a" * 10_000)
    fstat = os.fstat

    def written_to(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        with file.open("ab") as more:
            more.write(b"b")
        return found

    assert store_put._value(str(file)) == b"a" * 10_000
    monkeypatch.setattr("mooncake_cli.commands.store_put.os.fstat", written_to)
    with pytest.raises(FileChanged, match="changed while it was read, and was not put"):
        store_put._value(str(file))


def test_a_file_that_is_cut_short_afterwards(tmp_path: Path) -> None:
    """One that is mapped ends the process then."""
    file = tmp_path / "value"
    file.write_bytes(b"a" * 100_000)
    value = store_put._value(str(file))
    os.truncate(file, 0)
    assert bytes(value) == b"a" * 100_000


def test_fewer_replicas_than_asked_for_are_told(mooncake: Mooncake, pool: Pool, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_bytes(b"x" * 5000)
    done = mooncake("store", "put", "put/replicas", str(file), "--replicas", "2", **pool.variables)
    assert done.returncode == 0
    assert "warning: it has 1 replica: no more clients give memory" in done.stderr


def test_no_master(mooncake: Mooncake, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_bytes(b"x")
    done = mooncake("store", "put", "x", str(file), "--master", f"127.0.0.1:{closed_port()}")
    assert done.returncode == 6
    assert "Traceback" not in done.stderr
