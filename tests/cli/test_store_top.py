from __future__ import annotations

import json

from mooncake_cli.commands.store_top import _line, _moment, _row
from tests.cli.conftest import Mooncake
from tests.p2pstore.kv.master.table import Served

ONE = {
    "numbers": {"total_get_nums": 10, "valid_get_nums": 5, "evicted_key_count": 1},
    "calls": {"PutStart": [4, 0, 0, 0, 0], "BatchPutStart": [1, 0, 0, 32, 0], "BatchExistKey": [1, 0, 0, 100, 0]},
}
TWO = {
    "numbers": {
        "total_get_nums": 20,
        "valid_get_nums": 14,
        "evicted_key_count": 3,
        "key_count": 7,
        "allocated_bytes": 1 << 20,
        "total_capacity_bytes": 4 << 20,
        "active_clients": 2,
    },
    "calls": {"PutStart": [6, 0, 0, 0, 0], "BatchPutStart": [2, 0, 0, 64, 0], "GetReplicaList": [10, 0, 0, 0, 0]},
}


def test_keys_are_counted_of_single_calls_and_of_batches() -> None:
    before, now = _moment(ONE)._replace(at=0.0), _moment(TWO)._replace(at=2.0)
    row = _row(before, now, TWO)
    assert (row["puts"], row["reads"], row["hits"], row["evicted"]) == (17.0, 5.0, 0.9, 1.0)
    assert _line(row).split() == ["17", "-50", "5", "90", "%", "1", "7", "1.0", "MiB", "25", "%", "2"]


def test_of_upstreams_master_the_metrics_tell() -> None:
    answer = {"numbers": {"put_start_requests": 3, "batch_put_start_items": 4, "exist_key_requests": 5}, "calls": {}}
    assert _moment(answer)[1:4] == (7, 5, 0)


def test_lines(mooncake: Mooncake, store: Served) -> None:
    done = mooncake("store", "top", "--interval", "0.1", "--count", "2", "--admin", store.address)
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    assert head.split()[0] == "PUT/S"
    assert [line.split() for line in lines] == [["0", "0", "0", "-", "0", "3", "0", "B", "0", "%", "0"]] * 2
    done = mooncake("store", "top", "--interval", "0.1", "--count", "1", "--json", "--admin", store.address)
    assert json.loads(done.stdout)["keys"] == 3
