from __future__ import annotations

import json

from tests.cli.conftest import Mooncake
from tests.p2pstore.kv.master.table import KEY, STRANGE, Served


def test_one_key(mooncake: Mooncake, store: Served) -> None:
    done = mooncake("store", "info", STRANGE, "--admin", store.address)
    assert done.returncode == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines == [
        r"key a b+c,d\n世",
        "tenant default",
        "size 4.0 KiB (4,096 bytes)",
        "leased for another 2.0 s",
        "",
        "WHERE ENDPOINT SIZE ADDRESS",
        "memory 10.0.0.2:12001 4.0 KiB 0x7f0000000000",
        "nof n 4.0 KiB 0x1",
        "disk /mnt/x 4.0 KiB -",
        "localdisk 10.0.0.2:1 4.0 KiB -",
    ]


def test_one_key_for_scripts(mooncake: Mooncake, store: Served) -> None:
    assert json.loads(mooncake("store", "info", KEY, "--json", "--admin", store.address).stdout)["size"] == 4096
    assert mooncake("store", "info", KEY, "-q", "--admin", store.address).stdout == "10.0.0.2:12001\n"
    assert mooncake("store", "info", "only-red", "--admin", store.address).returncode == 3
    done = mooncake("store", "info", "only-red", "-q", "--admin", store.address, MOONCAKE_TENANT_ID="red")
    assert done.stdout == "10.0.0.2:12001\n"
