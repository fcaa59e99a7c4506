"""What cannot be replaced is found out before anything is written, and what others put there is not taken for ours."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pstore.errors import (
    DestinationExists,
    DirectoryMissing,
    ForeignContent,
    MooncakeError,
    NotReplaceable,
    StorageError,
    UsageError,
)
from p2pstore.pull import target as module
from p2pstore.pull.target import Target, check_contents, examine, resolved
from p2pstore.pull.workplace import Workplace, work_name
from tests.p2pstore.mounting import bound, mounted
from tests.p2pstore.samples import manifest_of, write_tree
from tests.p2pstore.users import own_directory, run_unprivileged

TREE = manifest_of({"a": b"1", "sub/b": b"2"}, directories=("none",))
FILE = manifest_of({"": b"1"})
EACH = pytest.mark.parametrize("manifest", [TREE, FILE], ids=["directory", "file"])


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "dest"


@EACH
@pytest.mark.parametrize("force", [False, True])
def test_nothing_there(dest: Path, manifest: object, force: bool) -> None:
    made = TREE if manifest == TREE else FILE
    assert examine(dest, made, force=force) == Target(dest.parent)
    for parent, fault in ((dest.parent / "none", DirectoryMissing), (dest, StorageError)):
        dest.touch()
        with pytest.raises(fault) as caught:
            examine(parent / "x", made, force=force)
        assert caught.value.fields["path"] == parent
    with pytest.raises(UsageError):
        examine(Path("/"), made, force=force)
    with pytest.raises(StorageError, match="name too long"):
        examine(dest.with_name("x" * 256), made, force=force)


def test_a_file_is_replaced_with_force(dest: Path) -> None:
    dest.write_bytes(b"old")
    for manifest in (TREE, FILE):
        with pytest.raises(DestinationExists) as caught:
            examine(dest, manifest, force=False)
        assert "DEST/" not in caught.value.hint, "nothing can be put inside a file"
        assert examine(dest, manifest, force=True) == Target(dest.parent)


def test_a_directory(dest: Path) -> None:
    dest.mkdir()
    assert examine(dest, TREE, force=False) == examine(dest, TREE, force=True) == Target(dest, fill=True)
    with pytest.raises(DestinationExists):
        examine(dest, FILE, force=False)
    assert examine(dest, FILE, force=True) == Target(dest.parent)
    (dest / "lost+found").mkdir()
    assert examine(dest, TREE, force=False).fill
    (dest / "x").touch()
    with pytest.raises(DestinationExists) as caught:
        examine(dest, TREE, force=False)
    assert "DEST/" in caught.value.hint
    assert examine(dest, TREE, force=True) == Target(dest.parent)


def test_a_directory_that_is_being_filled_is_gone_on_with(dest: Path) -> None:
    dest.mkdir()
    work = Workplace(dest, dest, TREE.digest, "n")
    (dest / "a").touch()
    with pytest.raises(DestinationExists):
        examine(dest, TREE, force=False)
    work.begin_to_fill()
    assert examine(dest, TREE, force=False) == Target(dest, fill=True)
    with pytest.raises(DestinationExists):
        examine(dest, manifest_of({"other": b""}), force=False)
    work.remove()


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
@pytest.mark.parametrize("force", [False, True])
def test_what_is_never_replaced(dest: Path, kind: str, force: bool) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "pipe":
            os.mkfifo(dest)
        elif kind == "socket":
            listener.bind(str(dest))
        with pytest.raises(UsageError, match="a device, a pipe or a socket"):
            examine(Path("/dev/null") if kind == "device" else dest, FILE, force=force)


def test_links_are_resolved(dest: Path, tmp_path: Path) -> None:
    assert resolved(dest) == dest
    dest.write_bytes(b"")
    assert resolved(dest) == dest
    for target in (dest, tmp_path / "dangling", tmp_path / "none" / "x"):
        link = tmp_path / f"to {target.name}"
        link.symlink_to(os.path.relpath(target, tmp_path))
        (tmp_path / f"twice {target.name}").symlink_to(link)
        assert resolved(link) == resolved(tmp_path / f"twice {target.name}") == target
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    with pytest.raises(NotReplaceable, match="in a circle"):
        resolved(circle)


@pytest.mark.parametrize("same", [False, True], ids=["another file system", "the same file system"])
def test_a_mount_point_is_filled(dest: Path, tmp_path: Path, same: bool) -> None:
    dest.mkdir()
    (tmp_path / "volume").mkdir()
    with bound(tmp_path / "volume", dest) if same else mounted("tmpfs", dest, "size=1m"):
        assert examine(dest, TREE, force=False) == Target(dest, fill=True)
        with pytest.raises(NotReplaceable, match="a mount point"):
            examine(dest, FILE, force=True)
        (dest / "a").touch()
        with pytest.raises(DestinationExists):
            examine(dest, TREE, force=False)
        assert examine(dest, TREE, force=True) == Target(dest, fill=True)


def test_a_file_as_a_mount_point(dest: Path, tmp_path: Path) -> None:
    dest.touch()
    (tmp_path / "volume").write_bytes(b"x")
    with bound(tmp_path / "volume", dest):
        for manifest in (TREE, FILE):
            with pytest.raises(NotReplaceable, match="a mount point"):
                examine(dest, manifest, force=True)


def test_what_is_mounted_below_is_not_deleted(dest: Path) -> None:
    (dest / "sub").mkdir(parents=True)
    with mounted("tmpfs", dest / "sub", "size=1m"):
        for manifest in (TREE, FILE):
            with pytest.raises(NotReplaceable, match="mounted below"):
                examine(dest, manifest, force=True)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    with own_directory() as made:
        yield made


def test_what_another_user_has_in_a_sticky_directory(unprivileged: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make another user's files")
    sticky = unprivileged / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    (sticky / "root's").write_bytes(b"x")
    code = """
from p2pstore.pull.target import examine
for name in ("root's", "new"):
    try:
        print(examine(Path(sys.argv[1]) / name, manifest_of({"": b"x"}), force=True).fill)
    except MooncakeError as error:
        print(error.exit_code, error.fields["detail"])
"""
    said = run_unprivileged(code, sticky)
    assert said == "7 it is another user's, in a directory with the sticky bit\nFalse\n"


def test_a_directory_in_one_that_may_not_be_written_is_filled(unprivileged: Path) -> None:
    code = """
from p2pstore.pull.target import examine
parent = Path(sys.argv[1]) / "locked"
(parent / "dest").mkdir(parents=True)
(parent / "dest" / "a").touch()
parent.chmod(0o555)
print(examine(parent / "dest", manifest_of({"a": b"x"}), force=True).fill)
"""
    assert run_unprivileged(code, unprivileged) == "True\n"


def test_what_chattr_protects(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dest.write_bytes(b"x")
    if os.geteuid() == 0 and not subprocess.run(["chattr", "+i", dest], capture_output=True, check=False).returncode:
        try:
            with pytest.raises(NotReplaceable, match="lsattr"):
                examine(dest, FILE, force=True)
        finally:
            subprocess.run(["chattr", "-i", dest], check=True)
    assert examine(dest, FILE, force=True) == Target(dest.parent)

    def flags(descriptor: int, request: int, room: bytearray) -> None:
        room[0] = module._APPEND

    monkeypatch.setattr(fcntl, "ioctl", flags)
    with pytest.raises(NotReplaceable, match="lsattr"):
        examine(dest, FILE, force=True)

    def refuses(descriptor: int, request: int, room: bytearray) -> None:
        raise OSError(errno.ENOTTY, "no such call")

    monkeypatch.setattr(fcntl, "ioctl", refuses)
    assert examine(dest, FILE, force=True) == Target(dest.parent)


@pytest.mark.parametrize(
    ("there", "stranger"),
    [
        ({}, ""),
        ({"a": b"other bytes", "sub/b": b""}, ""),
        ({"a": b"", "x": b""}, "x"),
        ({"sub/x": b""}, "sub/x"),
        ({"sub/b/x": b""}, "sub/b"),
        ({"a/x": b""}, "a"),
        ({"lost+found/x": b""}, ""),
        ({"sub/lost+found/x": b""}, "sub/lost+found"),
        ({"old": b""}, ""),
    ],
)
def test_an_earlier_version_has_no_names_but_the_objects(dest: Path, there: dict[str, bytes], stranger: str) -> None:
    write_tree(dest, there)
    known = [TREE, manifest_of({"old": b""})]
    if not stranger:
        check_contents(dest, known)
        return
    with pytest.raises(ForeignContent) as caught:
        check_contents(dest, known)
    assert caught.value.fields["name"] == stranger


@pytest.mark.parametrize("kind", ["link", "pipe", "link to a directory"])
def test_what_is_neither_file_nor_directory_is_foreign(dest: Path, kind: str) -> None:
    dest.mkdir()
    if kind == "pipe":
        os.mkfifo(dest / "a")
    else:
        (dest / ("sub" if "directory" in kind else "a")).symlink_to("..")
    with pytest.raises(ForeignContent):
        check_contents(dest, [TREE])


def test_where_a_get_works_is_not_foreign(dest: Path) -> None:
    dest.mkdir()
    (dest / work_name("dest")).mkdir()
    check_contents(dest, [TREE])
    (dest / work_name("another")).mkdir()
    with pytest.raises(MooncakeError):
        check_contents(dest, [TREE])


def test_a_file_has_no_contents(dest: Path) -> None:
    check_contents(dest, [FILE])
    dest.touch()
    check_contents(dest, [FILE])
