"""Two views of one path are told apart, and one view is never taken for two."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pstore.agent import sight as module
from p2pstore.agent.sight import (
    check,
    check_result,
    check_shared,
    look,
    mounts_below,
    same,
    sight,
    sight_of_destination,
    sight_of_source,
)
from p2pstore.errors import OtherView, UsageError


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is in another mount namespace than whoever said what it sees."""
    monkeypatch.setattr(module, "view_id", lambda: "boot/2/1/1")


def said(call: dict[str, object], view: str = "boot/1/1/1") -> dict[str, object]:
    return {**call, "view": view}


def test_in_one_mount_namespace_nothing_is_compared(tmp_path: Path) -> None:
    check({**sight(str(tmp_path)), "places": {str(tmp_path): [1, 2, 3, 4, 5]}})


@pytest.mark.usefixtures("elsewhere")
def test_the_same_file_is_good_from_any_namespace(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    check(said(sight(str(tmp_path / "f"), str(tmp_path))))
    check(said(sight_of_source(str(tmp_path))))
    check(said(sight_of_destination(str(tmp_path / "new"))))
    check(said(sight(str(tmp_path / "missing"))))  # what the command does not see, it does not speak of


@pytest.mark.usefixtures("elsewhere")
def test_another_file_is_refused(tmp_path: Path) -> None:
    for name in ("f", "g"):
        (tmp_path / name).write_text(name * 3)
    call = said(sight(str(tmp_path / "f")))
    os.replace(tmp_path / "g", tmp_path / "f")
    with pytest.raises(OtherView, match=f"does not see at {tmp_path}/f what this command sees there"):
        check(call)
    (tmp_path / "f").unlink()
    with pytest.raises(OtherView):
        check(call)


@pytest.mark.usefixtures("elsewhere")
def test_on_another_kernel_numbers_say_nothing(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("x")
    call = said(sight(str(file)), "other-boot/1/1/1")
    check(call)
    file.write_text("y")
    os.utime(file, ns=(1, 1))
    with pytest.raises(OtherView):
        check(call)


def test_inodes_that_change_at_every_look_are_no_difference() -> None:
    one = [7, 100, 5, 10, 11]
    assert same(one, [7, 101, 5, 10, 11])
    assert same(one, [7, 100, 6, 12, 13]), "it was written to meanwhile"
    assert not same(one, [7, 101, 5, 10, 12])
    assert not same(one, [7, 100, 6, 12, 13], same_kernel=False)
    assert not same(one, None)
    assert not same(None, None)
    assert not same("x", one)


@pytest.mark.usefixtures("elsewhere")
def test_a_mount_that_only_one_of_them_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = {"theirs": ["sub 0:5 /"], "ours": ["sub 0:5 /"]}
    monkeypatch.setattr(module, "mounts_below", lambda _: below["theirs"])
    call = said(sight_of_source(str(tmp_path)))
    check(call)
    monkeypatch.setattr(module, "mounts_below", lambda _: [])
    with pytest.raises(OtherView):
        check(call)
    dest = said(sight_of_destination(str(tmp_path / "dest")))
    check(dest)
    monkeypatch.setattr(module, "_mounted", lambda path: (path,))
    with pytest.raises(OtherView, match="dest"):
        check(dest)


def test_mounts_are_read_from_the_kernels_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = os.path.realpath(tmp_path)
    listed = tmp_path / "mountinfo"
    listed.write_text(
        f"1 0 0:1 / / rw - x x rw\n2 1 0:2 /v {top}/b rw shared:1 - tmpfs t rw\n3 1 0:3 / {top}/a/c rw - x x rw\n"
        f"4 1 0:4 / {top}else rw - x x rw\n"
    )
    monkeypatch.setattr(module, "_MOUNTS", listed)
    assert mounts_below(str(tmp_path)) == ["a/c 0:3 /", "b 0:2 /v"]
    monkeypatch.setattr(module, "_MOUNTS", tmp_path / "missing")
    assert mounts_below(str(tmp_path)) == []


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    "call",
    [
        None,
        "x",
        {},
        {"view": 5},
        {"places": []},
        {"places": {}, "mounts": [], "dest": 4},
    ],
)
def test_a_call_that_says_nothing_is_let_through(call: object) -> None:
    check(call)


@pytest.mark.usefixtures("elsewhere")
def test_what_makes_no_sense_is_no_match(tmp_path: Path) -> None:
    for seen in (None, 4, [], [1], {"a": 1}):
        with pytest.raises(OtherView):
            check({"places": {str(tmp_path): seen}})


def test_the_result_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "f"
    file.write_text("x")
    seen = look(str(file))
    check_result(str(tmp_path / "missing"), module.view_id(), seen)
    monkeypatch.setattr(module, "view_id", lambda: "boot/2/1/1")
    check_result(str(file), "boot/1/1/1", seen)
    check_result(str(file), "boot/1/1/1", None)
    with pytest.raises(OtherView):
        check_result(str(tmp_path / "missing"), "boot/1/1/1", seen)


@pytest.mark.parametrize(
    "path",
    ["/dev/fd/3", "/dev/stdin", "/dev/stdout", "/proc/self/cwd/new", "//proc/self/fd/3", "/proc/thread-self/root"],
)
def test_what_every_process_has_of_its_own_is_refused(path: str) -> None:
    for say in (check_shared, sight, sight_of_source, sight_of_destination):
        with pytest.raises(UsageError, match="is another file in each process"):
            say(path)


def test_what_only_begins_like_it_is_not(tmp_path: Path) -> None:
    for path in ("/dev/fdx", "/dev/shm/fd", "/proc/selfish", f"/proc/{os.getpid()}/fd/3", f"{tmp_path}/dev/fd/3"):
        check_shared(path)
