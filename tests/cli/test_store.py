"""Which master the commands of ``mooncake store`` mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mooncake_cli.commands.store import admin_of, master_of
from p2pstore.errors import UsageError
from p2pstore.settings.settings import Settings
from tests.cli.conftest import Mooncake
from tests.p2pstore.kv.master.table import Served

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def settings(**flags: str) -> Settings:
        return Settings.load(flags, environ={"HOME": str(tmp_path)}, cwd=tmp_path, system=tmp_path / "none")

    return settings


def test_the_metrics_port_is_the_masters_unless_it_is_named(load: Load) -> None:
    assert (master_of(load()), admin_of(load())) == (("127.0.0.1", 50051), ("127.0.0.1", 9003))
    settings = load(master="10.0.0.1")
    assert (master_of(settings), admin_of(settings)) == (("10.0.0.1", 50051), ("10.0.0.1", 9003))
    assert admin_of(load(master="[fd00::1]:5", master_admin="h:7")) == ("h", 7)
    assert admin_of(load(master_admin="h")) == ("h", 9003)


def test_a_master_that_is_looked_up_must_be_named(load: Load) -> None:
    with pytest.raises(UsageError, match="'etcd://a:2379' is where a master is looked up; name the master itself"):
        master_of(load(master="etcd://a:2379"))
    with pytest.raises(UsageError):
        master_of(load(master="a b"))


def test_settings_and_options_name_it(mooncake: Mooncake, store: Served) -> None:
    assert mooncake("store", "status", "-q", MOONCAKE_MASTER_ADMIN=store.address).stdout == "serving\n"
    done = mooncake("store", "status", "-q", "--admin", store.address, MOONCAKE_MASTER_ADMIN="127.0.0.1:1")
    assert (done.returncode, done.stdout) == (0, "serving\n")
    assert mooncake("store", "status", "--admin", "a b").returncode == 2
