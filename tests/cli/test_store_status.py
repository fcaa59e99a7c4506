from __future__ import annotations

import json

from tests.cli.conftest import Mooncake
from tests.p2pstore.kv.master.table import Served, Table
from tests.ports import closed_port


def test_what_people_see(mooncake: Mooncake, store: Served) -> None:
    done = mooncake("store", "status", "--admin", store.address)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[:8] == [
        "master mooncake 1",
        "address 10.0.0.1:50051",
        "state serving, for 3.0 s",
        "memory 0 B of 4.0 MiB (0 %)",
        "keys 3",
        "clients 1 connection (version 0.3.13: 1)",
        "reads 4, of which 75 % found a value",
        "evicted 0 keys, 0 B",
    ]
    assert "unknown calls FlyToTheMoon (1); 'mooncake store why' says whose" in lines
    assert "host:1 10.0.0.2:1 1.0 GiB 512.0 MiB (50 %) ok" in lines
    assert "gone:1 10.0.0.2:1 0 B 512.0 MiB absent" in lines
    assert "10.0.0.3:4 0.3.13 1 3 2 1 0 0" in lines


def test_a_long_name_stretches_no_table(mooncake: Mooncake, store: Served, table: Table) -> None:
    table.segment_name = "a" * 60_000 + ":15001"
    done = mooncake("store", "status", "--admin", store.address)
    assert len(done.stdout) < 3000
    assert any(line.startswith("aaa") and ":15001  " in line for line in done.stdout.splitlines())
    answer = json.loads(mooncake("store", "status", "--json", "--admin", store.address).stdout)
    assert answer["segments"][0]["segment_name"] == table.segment_name


def test_scripts_get_all_of_it(mooncake: Mooncake, store: Served) -> None:
    answer = json.loads(mooncake("store", "status", "--json", "--admin", store.address).stdout)
    assert answer["numbers"]["key_count"] == 3
    assert answer["clients"][0]["failures"] == {"-200": 2}


def test_a_master_that_is_not_ready_is_shown(mooncake: Mooncake, store: Served, table: Table) -> None:
    table.is_ready = False
    assert mooncake("store", "status", "-q", "--admin", store.address).stdout == "recovering\n"


def test_no_master(mooncake: Mooncake) -> None:
    done = mooncake("store", "status", "--admin", f"127.0.0.1:{closed_port()}")
    assert done.returncode == 6
    assert "cannot be used: connection refused" in done.stderr
