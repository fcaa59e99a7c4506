from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Mooncake
from tests.cli.store_processes import Pool, Process
from tests.ports import closed_port


def test_memory_is_there_until_it_is_taken_back(
    mooncake: Mooncake, environment: dict[str, str], pool: Pool, tmp_path: Path
) -> None:
    def size() -> int:
        status = json.loads(mooncake("store", "status", "--json", **pool.variables).stdout)
        return int(status["numbers"]["total_capacity_bytes"])

    before = size()
    giver = Process({**environment, **pool.variables}, tmp_path, "give", "8MiB")
    assert giver.told["size"] == 8 << 20
    assert giver.told["master"] == pool.variables["MOONCAKE_MASTER"]
    assert size() == before + (8 << 20)
    assert giver.end() == 0
    assert size() == before
    assert giver.log.read_text() == ""


def test_a_directory_for_values_is_one_giver_s(
    mooncake: Mooncake, environment: dict[str, str], pool: Pool, tmp_path: Path
) -> None:
    disk = ["--disk", str(tmp_path / "disk"), "--disk-limit", "1MiB"]
    giver = Process({**environment, **pool.variables}, tmp_path, "give", "8MiB", *disk)
    done = mooncake("store", "give", "8MiB", *disk, **pool.variables)
    assert done.returncode == 7
    assert "another process keeps values on disk in" in done.stderr
    assert giver.end() == 0
    done = mooncake("store", "give", "8MiB", "--disk", "/proc/values", **pool.variables)
    assert done.returncode == 8
    assert "values cannot be kept on disk in /proc/values" in done.stderr
    assert mooncake("store", "give", "8MiB", *disk[:3], "1", **pool.variables).returncode == 2


def test_what_cannot_be_given(mooncake: Mooncake, pool: Pool) -> None:
    assert mooncake("store", "give", "much", **pool.variables).returncode == 2
    for size in ("0", "1"):
        assert mooncake("store", "give", size, **pool.variables).returncode == 2
    done = mooncake("store", "give", "8MiB", "--host", "0.0.0.0", **pool.variables)
    assert done.returncode == 7
    assert "--insecure" in done.stderr
    assert "--allow" not in done.stderr  # which it does not have


def test_more_than_there_is_is_warned_of(mooncake: Mooncake) -> None:
    """The system takes it, and ends somebody when it is filled."""
    nobody = ("--master", f"127.0.0.1:{closed_port()}")
    done = mooncake("store", "give", "1000TiB", *nobody)
    assert "warning: 1000.0 TiB are more than the " in done.stderr
    assert "more than" not in mooncake("store", "give", "1MiB", *nobody).stderr


def test_no_master(mooncake: Mooncake) -> None:
    done = mooncake("store", "give", "8MiB", "--master", f"127.0.0.1:{closed_port()}")
    assert done.returncode == 6
    assert "Traceback" not in done.stderr
