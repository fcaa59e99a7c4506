"""An agent's directories are its user's, or it does not use them."""

from __future__ import annotations

import grp
import os
import stat
from pathlib import Path

import pytest

from p2pstore.agent import private
from p2pstore.agent.private import group_id, let_connect, let_pass, make_own, make_root
from p2pstore.errors import BadConfig, HomeUnusable


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_both_are_made_for_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_root(tmp_path / "a" / "b")
        make_own(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a" / "b") == mode(tmp_path / "a" / "b" / "c") == 0o700


def test_one_of_our_own_is_closed_and_a_home_that_was_named_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o755)
    make_root(tmp_path / "d")
    assert mode(tmp_path / "d") == 0o755
    make_own(tmp_path / "d")
    assert mode(tmp_path / "d") == 0o700


@pytest.mark.parametrize("make", [make_root, make_own])
def test_anothers_directory_is_not_used(tmp_path: Path, make) -> None:
    """As one that lies ready in /tmp under the name of the README."""
    if os.geteuid():
        pytest.skip("only root can give directories away")
    (tmp_path / "second").mkdir()
    os.chown(tmp_path / "second", 12345, 12345)
    with pytest.raises(HomeUnusable, match=r"is another user's: .*second belongs to user 12345"):
        make(tmp_path / "second")


@pytest.mark.parametrize("make", [make_root, make_own])
def test_nor_is_a_link_that_another_made(tmp_path: Path, make) -> None:
    if os.geteuid():
        pytest.skip("only root can give links away")
    (tmp_path / "ours").mkdir()
    (tmp_path / "second").symlink_to("ours")
    make(tmp_path / "second")
    os.chown(tmp_path / "second", 12345, 12345, follow_symlinks=False)
    with pytest.raises(HomeUnusable, match="belongs to "):
        make(tmp_path / "second")


def test_a_home_that_others_can_write_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o1777)
    make_root(tmp_path)
    assert not caplog.text
    tmp_path.chmod(0o777)
    make_root(tmp_path)
    assert f"others can write to {tmp_path}" in caplog.text


def test_a_file_system_without_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o755)

    def chmod(_path: Path, _mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(private.system, "chmod", chmod)
    make_own(tmp_path / "d")
    assert "is open to others, and cannot be closed: Operation not permitted" in caplog.text


def test_a_group_may_pass_and_connect(tmp_path: Path) -> None:
    gid = os.getgid()
    (tmp_path / "d").mkdir()
    let_pass(tmp_path / "d", gid)
    (tmp_path / "s").touch()
    let_connect(tmp_path / "s", gid)
    assert (mode(tmp_path / "d"), mode(tmp_path / "s")) == (0o710, 0o660)
    assert (tmp_path / "d").stat().st_gid == (tmp_path / "s").stat().st_gid == gid
    with pytest.raises(HomeUnusable, match="cannot be opened to group"):
        let_pass(tmp_path / "missing", gid)


def test_a_group_has_a_name_and_an_agent_for_it_is_not_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    name = grp.getgrgid(os.getgid()).gr_name
    monkeypatch.setattr(private.os, "geteuid", lambda: 1000)
    assert group_id(name) == os.getgid()
    with pytest.raises(BadConfig, match="no group of this name"):
        group_id("no-such-group-here")
    monkeypatch.setattr(private.os, "geteuid", lambda: 0)
    with pytest.raises(BadConfig, match="run it as another user"):
        group_id(name)
