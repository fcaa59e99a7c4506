from __future__ import annotations

import json

from tests.cli.conftest import Mooncake
from tests.p2pstore.kv.master.table import KEY, STRANGE, Served, Table


def test_keys_in_their_order(mooncake: Mooncake, store: Served) -> None:
    done = mooncake("store", "list", "--admin", store.address)
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["KEY", "SIZE", "REPLICAS", "TENANT"]
    assert rows[0].startswith(r"a b+c,d\n\u4e16".replace(r"\u4e16", "\u4e16"))
    assert rows[1].split() == [KEY, "4.0", "KiB", "1", "default"]
    assert rows[2].split() == ["only-red", "4.0", "KiB", "1", "red"]


def test_keys_for_scripts(mooncake: Mooncake, store: Served) -> None:
    answer = json.loads(mooncake("store", "list", "--json", "--admin", store.address).stdout)
    assert [each["key"] for each in answer["keys"]] == [STRANGE, KEY, "only-red"]
    assert mooncake("store", "list", "llama", "-q", "--admin", store.address).stdout == f"{KEY}\n"
    assert mooncake("store", "list", "-q", "--tenant-id", "red", "--admin", store.address).stdout == "only-red\n"


def test_a_limit_says_that_there_may_be_more(mooncake: Mooncake, store: Served) -> None:
    done = mooncake("store", "list", "--limit", "1", "--admin", store.address)
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == "1 key listed, and there may be more\n"
    assert mooncake("store", "list", "--limit", "0", "--admin", store.address).returncode == 2


def test_no_keys(mooncake: Mooncake, store: Served, table: Table) -> None:
    table.held.clear()
    done = mooncake("store", "list", "--admin", store.address)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "there are no keys\n")
    assert mooncake("store", "list", "x", "--admin", store.address).stderr == "there are no keys that begin with 'x'\n"
