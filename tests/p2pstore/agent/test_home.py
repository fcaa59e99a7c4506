from __future__ import annotations

import errno
import os
import pwd
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pstore.agent import elsewhere, private
from p2pstore.agent import home as module
from p2pstore.agent.home import MAX_SOCKET_PATH, Home, host_name, listens, socket_address
from p2pstore.errors import BadConfig, HomeUnusable, NoHome, PathNotFound
from tests.descriptors import open_below
from tests.p2pstore.agent.full_socket import full_socket
from tests.refusing import RefusingFileSystem


def test_a_named_home_holds_everything(tmp_path: Path) -> None:
    home = Home.resolve(tmp_path / "h", {"MOONCAKE_HOME": "/elsewhere"})
    inside = {
        home.state,
        home.run,
        home.socket,
        home.local_socket,
        home.log,
        home.lock,
        home.etcd,
        home.start_error,
        home.end_error,
    }
    assert all(path.is_relative_to(tmp_path / "h") for path in inside)
    assert home.arguments() == ["--home", str(tmp_path / "h")]


def test_the_environment_names_one_too(tmp_path: Path) -> None:
    assert Home.resolve(None, {"MOONCAKE_HOME": str(tmp_path)}).root == tmp_path


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Home.resolve(Path("a/../b"), {}).root == tmp_path / "b"


def test_without_one_the_xdg_directories_count(tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    home = Home.resolve(None, {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_RUNTIME_DIR": str(runtime)})
    assert home.root == tmp_path / "state" / "mooncake" / host_name()
    assert home.socket == runtime / "mooncake" / "agent.sock"
    assert home.arguments() == []


def test_sockets_lie_below_the_state_where_there_is_no_runtime_directory(tmp_path: Path) -> None:
    if os.path.isdir(f"/run/user/{os.getuid()}"):
        pytest.skip("this machine has a runtime directory for us, whatever the environment says")
    home = Home.resolve(None, {"XDG_STATE_HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "missing")})
    assert home.socket.is_relative_to(tmp_path / "mooncake")


def test_create_makes_it_for_its_owner_only(tmp_path: Path) -> None:
    home = Home.resolve(tmp_path / "h", {})
    home.create()
    home.create()
    for directory in (home.root, home.state, home.run, home.log.parent, home.etcd):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_home_is_shared_with_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "group_id", lambda _: os.getgid())
    home = Home.resolve(tmp_path / "h", {})
    home.create()
    assert home.share("any") == os.getgid()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (home.root, home.run, home.state)] == [0o710, 0o710, 0o700]
    with pytest.raises(BadConfig, match="name a home that the group can reach"):
        Home.resolve(None, {"XDG_STATE_HOME": str(tmp_path)}).share("any")


def test_create_closes_a_directory_that_was_open(tmp_path: Path) -> None:
    home = Home.resolve(tmp_path / "h", {})
    home.run.mkdir(parents=True, mode=0o755)
    home.run.chmod(0o777)
    home.create()
    assert stat.S_IMODE(home.run.stat().st_mode) == 0o700


def test_a_home_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeUnusable, match=r"file(/h)?: Not a directory"):
        Home.resolve(tmp_path / "file" / "h", {}).create()


@pytest.mark.parametrize("length", [20, 300])
def test_sockets_are_bound_and_reached_however_long_their_path(tmp_path: Path, length: int) -> None:
    directory = tmp_path / ("d" * (length // 2)) / ("e" * (length // 2))
    directory.mkdir(parents=True)
    path = directory / "agent.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with socket_address(path) as address:
            assert len(os.fsencode(address)) <= MAX_SOCKET_PATH
            server.bind(address)
        server.listen()
        with socket_address(path) as address:
            client.connect(address)
    assert path.is_socket()


def test_descriptors_of_directories_are_given_back(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 200) / "agent.sock"
    path.parent.mkdir()
    before = open_below(tmp_path)
    with socket_address(path):
        pass
    assert open_below(tmp_path) == before


def test_a_missing_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(PathNotFound), socket_address(tmp_path / ("d" * 200) / "agent.sock"):
        pass


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RefusingFileSystem:
    """The file system of a home; what stands for it is made beside it."""
    (tmp_path / "h").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(elsewhere, "_candidates", lambda digest: [(tmp_path / "tmp", digest)])
    return RefusingFileSystem(tmp_path / "h", monkeypatch)


def test_sockets_lie_elsewhere_where_the_home_can_hold_none(tmp_path: Path, remote: RefusingFileSystem) -> None:
    home = Home.resolve(tmp_path / "h", {})
    assert home.socket.parent == home.run
    remote.refuses("bind", errno.EPERM)
    home.create()
    assert home.socket.parent.parent == tmp_path / "tmp"
    assert Home.resolve(tmp_path / "h", {}).socket == home.socket == home.local_socket.with_name("agent.sock")
    remote.behaves()
    home.create()
    assert home.socket.parent == home.run


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.EROFS])
def test_a_home_whose_modes_cannot_be_set(tmp_path: Path, remote: RefusingFileSystem, number: int) -> None:
    home = Home.resolve(tmp_path / "h", {})
    home.run.mkdir(mode=0o755)
    remote.refuses("chmod", number)
    home.create()
    assert home.socket.parent.parent == tmp_path / "tmp", "others can enter it"
    assert stat.S_IMODE(home.socket.parent.stat().st_mode) == 0o700


def test_a_home_whose_files_belong_to_nobody(tmp_path: Path, remote: RefusingFileSystem) -> None:
    """A network's file system that calls all that root makes nobody's."""

    def squashed(real: Callable[..., os.stat_result], *args: object, **kwargs: object) -> os.stat_result:
        fields = list(real(*args, **kwargs))
        fields[4] = 65534
        return os.stat_result(fields)

    home = Home.resolve(tmp_path / "h", {})
    for call in ("stat", "lstat", "fstat"):
        remote.answers(call, squashed)
    home.create()
    assert home.socket.parent.parent == tmp_path / "tmp"


def test_a_home_that_is_somebody_elses_is_refused(tmp_path: Path, remote: RefusingFileSystem) -> None:
    def theirs(real: Callable[..., os.stat_result], *args: object, **kwargs: object) -> os.stat_result:
        fields = list(real(*args, **kwargs))
        fields[4] = 65534
        return os.stat_result(fields)

    home = Home.resolve(tmp_path / "h", {})
    remote.answers("stat", theirs)
    with pytest.raises(HomeUnusable, match="another user"):
        home.create()


def no_passwd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod of a random user: no HOME, and no entry in passwd."""

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.parametrize("home", [None, "", "~", "relative"])
def test_without_a_home_directory_nothing_is_made_up(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    no_passwd(monkeypatch)
    with pytest.raises(NoHome, match=r"HOME is not set, and user \d+ has no entry in passwd") as caught:
        Home.resolve(None, {} if home is None else {"HOME": home})
    assert "--home DIR or MOONCAKE_HOME" in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("named", ["~", "~/x", "~no-such-user-here/x"])
def test_nobodys_home_is_no_directory_of_that_name(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    no_passwd(monkeypatch)
    with pytest.raises(NoHome, match="is nobody's home directory"):
        Home.resolve(Path(named), {})
    with pytest.raises(NoHome, match="is nobody's home directory"):
        Home.resolve(None, {"MOONCAKE_HOME": named})


@pytest.mark.parametrize("home", ["relative", ""])
def test_a_home_that_is_no_path_is_looked_up(home: str) -> None:
    found = Home.resolve(None, {"HOME": home})
    assert found.root == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".local" / "state" / "mooncake" / host_name()


def test_hosts_that_share_a_home_directory_have_homes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = tmp_path / "machine-id"
    monkeypatch.setattr(module, "_MACHINE_ID", machine)
    roots = []
    for name in ("node1", "node2.cluster", "localhost", "a/b", ".."):
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
        roots.append(Home.resolve(None, {"HOME": str(tmp_path)}).root)
    machine.write_text("0123456789abcdef\n")
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost.localdomain")
    roots.append(Home.resolve(None, {"HOME": str(tmp_path)}).root)
    base = tmp_path / ".local" / "state" / "mooncake"
    names = ["node1", "node2.cluster", "localhost", "a-b", "localhost", "localhost-0123456789ab"]
    assert roots == [base / name for name in names]


def test_whether_anybody_listens(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / "socket"
    assert not listens(path), "there is no directory"
    path.parent.mkdir(parents=True)
    assert not listens(path)
    with full_socket(path) as (_, others):
        assert listens(path), "with no room for us, too"
        others.close()
    assert not listens(path), "its file alone is left"
