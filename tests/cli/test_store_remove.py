from __future__ import annotations

import json

from tests.cli.conftest import Mooncake
from tests.p2pstore.kv.master.table import KEY, STRANGE, Served, Table


def test_what_is_leased_takes_force(mooncake: Mooncake, store: Served, table: Table) -> None:
    done = mooncake("store", "remove", KEY, "--admin", store.address)
    assert done.returncode == 7
    assert "somebody reads the value, or did a moment ago" in done.stderr
    assert table.removed == []
    done = mooncake("store", "remove", KEY, "--force", "--admin", store.address)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "removed 1 key\n")
    assert table.removed == [(KEY, True)]


def test_what_is_not_there(mooncake: Mooncake, store: Served) -> None:
    assert mooncake("store", "remove", "nothing", "--admin", store.address).returncode == 3
    assert mooncake("store", "remove", "nothing", "none", "--admin", store.address).returncode == 3


def test_some_of_several(mooncake: Mooncake, store: Served) -> None:
    done = mooncake("store", "remove", STRANGE, "nothing", KEY, KEY, "--force", "--json", "--admin", store.address)
    assert done.returncode == 10
    assert json.loads(done.stdout) == {"removed": [STRANGE, KEY]}
    asked = f"run 'mooncake store why nothing --admin {store.address}' to see"
    assert f"warning: the store has no value under 'nothing' ({asked}" in done.stderr
    assert "hint: run 'mooncake store why nothing" not in done.stderr  # that is in JSON here
    assert asked in json.loads(done.stderr.splitlines()[-1])["error"]["advice"]
    assert "1 key of 3 could not be removed" in done.stderr


def test_all_takes_a_word(mooncake: Mooncake, store: Served, table: Table) -> None:
    assert mooncake("store", "remove", "--admin", store.address).returncode == 2
    assert mooncake("store", "remove", KEY, "--all", "--admin", store.address).returncode == 2
    assert table.removed == []
    done = mooncake("store", "remove", "--all", "--admin", store.address)
    assert done.stderr == "removed 3 keys; what is leased was left\n"
    assert mooncake("store", "remove", "--all", "--force", "-q", "--admin", store.address).stdout == "3\n"
    assert table.removed == [("all of default", False), ("all of default", True)]
