from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Mooncake
from tests.cli.store_processes import Pool


@pytest.fixture
def value(mooncake: Mooncake, pool: Pool, tmp_path: Path) -> bytes:
    """What lies under ``get/value``."""
    data = os.urandom(70_001)
    (tmp_path / "put").write_bytes(data)
    assert mooncake("store", "put", "get/value", str(tmp_path / "put"), "--replace", **pool.variables).returncode == 0
    return data


def test_a_file(mooncake: Mooncake, pool: Pool, tmp_path: Path, value: bytes) -> None:
    file = tmp_path / "value"
    done = mooncake("store", "get", "get/value", str(file), **pool.variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"wrote 68.4 KiB to {file}\n")
    assert file.read_bytes() == value
    mask = os.umask(0)
    os.umask(mask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask
    assert os.listdir(tmp_path / "cwd") == []


def test_a_file_that_is_there(mooncake: Mooncake, pool: Pool, tmp_path: Path, value: bytes) -> None:
    file = tmp_path / "value"
    file.write_text("mine")
    done = mooncake("store", "get", "get/value", str(file), **pool.variables)
    assert (done.returncode, file.read_text()) == (7, "mine")
    assert "--force replaces it" in done.stderr
    done = mooncake("store", "get", "get/value", str(file), "--force", "--json", **pool.variables)
    assert json.loads(done.stdout) == {"key": "get/value", "size": len(value), "file": str(file)}
    assert file.read_bytes() == value


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed(mooncake: Mooncake, pool: Pool, tmp_path: Path, value: bytes, there: bool) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    if there:
        target.write_text("mine")
        assert mooncake("store", "get", "get/value", str(link), **pool.variables).returncode == 7
    done = mooncake("store", "get", "get/value", str(link), *["--force"][: int(there)], **pool.variables)
    assert done.stderr == f"wrote 68.4 KiB to {link}\n"
    assert link.is_symlink()
    assert target.read_bytes() == value


@pytest.mark.parametrize("place", ["", "new/"])
def test_what_is_no_name_of_a_file_is_refused(
    mooncake: Mooncake, pool: Pool, tmp_path: Path, value: bytes, place: str
) -> None:
    done = mooncake("store", "get", "get/value", place, **pool.variables)
    assert done.returncode == 2
    assert os.listdir(tmp_path / "cwd") == []


@pytest.mark.parametrize("place", ["/dev/null", "."])
def test_what_is_no_file_is_not_replaced(mooncake: Mooncake, pool: Pool, value: bytes, place: str) -> None:
    assert mooncake("store", "get", "get/value", place, "--force", **pool.variables).returncode == 2
    assert Path("/dev/null").is_char_device()


def test_standard_output(environment: dict[str, str], pool: Pool, value: bytes) -> None:
    command = [sys.executable, "-m", "mooncake_cli", "store", "get", "get/value", "-"]
    done = subprocess.run(command, env={**environment, **pool.variables}, capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (value, b"")


def test_json_and_the_value_do_not_mix(mooncake: Mooncake, pool: Pool, value: bytes) -> None:
    assert mooncake("store", "get", "get/value", "-", "--json", **pool.variables).returncode == 2


def test_a_reader_that_has_enough(environment: dict[str, str], pool: Pool, value: bytes) -> None:
    command = [sys.executable, "-m", "mooncake_cli", "store", "get", "get/value", "-"]
    with subprocess.Popen(
        command, env={**environment, **pool.variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


def test_a_place_that_cannot_be_written(mooncake: Mooncake, pool: Pool, tmp_path: Path, value: bytes) -> None:
    done = mooncake("store", "get", "get/value", str(tmp_path / "nowhere" / "file"), **pool.variables)
    assert done.returncode == 8
    assert "Traceback" not in done.stderr


def test_a_key_that_is_not_there(mooncake: Mooncake, pool: Pool, tmp_path: Path) -> None:
    done = mooncake("store", "get", "get/nothing", str(tmp_path / "x"), **pool.variables)
    assert done.returncode == 3
    assert "run 'mooncake store why get/nothing'" in done.stderr
    assert not (tmp_path / "x").exists()
