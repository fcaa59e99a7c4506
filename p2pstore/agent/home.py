"""Where an agent keeps its things: the paths of one home, and how to reach a socket whose path is too long.

A home is either one directory (``--home``, ``MOONCAKE_HOME``), or spread as the XDG base directory specification says:
state below ``$XDG_STATE_HOME/mooncake/HOST``, for many hosts may share one home directory; sockets below
``$XDG_RUNTIME_DIR/mooncake``. One agent serves one home.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from p2pstore.agent.elsewhere import place_of, use_another_place, use_itself
from p2pstore.errors import BadConfig, HomeUnusable, NoHome, PathNotFound, StorageError
from p2pstore.settings.files import home_directory

MAX_SOCKET_PATH = 107
"""Bytes in a Unix socket's path: ``sun_path`` of unix(7) less the final NUL."""

MAX_HOST_NAME = 200
"""Characters of a host's name in a path."""

_MACHINE_ID = Path("/etc/machine-id")


@dataclass(frozen=True)
class Home:
    """The paths of one home; nothing is made or looked at before ``create``.

    ``root`` is what the user is told. ``single`` says that it was named (and holds everything), so that another
    process is given it with ``--home``.
    """

    root: Path
    state: Path
    run: Path
    single: bool

    @property
    def sockets(self) -> Path:
        """The directory of the sockets: ``run``, or what ``create`` found instead where that can hold none."""
        return place_of(self.run)

    @property
    def socket(self) -> Path:
        """The agent's HTTP socket."""
        return self.sockets / "agent.sock"

    @property
    def local_socket(self) -> Path:
        """Where the ``local`` transport hands over file descriptors."""
        return self.sockets / "local.sock"

    @property
    def start_error(self) -> Path:
        """What an agent that failed to start leaves: ``{"error": to_wire(...)}``."""
        return self.run / "start-error.json"

    @property
    def end_error(self) -> Path:
        """What an agent that could not go on leaves: ``{"error": to_wire(...), "time": "2026-08-22T10:00:00Z"}``."""
        return self.root / "end-error.json"

    @property
    def waiting(self) -> Path:
        """What an agent that starts waits for: ``{"for": "metadata server ... does not answer"}``."""
        return self.root / "waiting.json"

    @property
    def start_lock(self) -> Path:
        """Held by the process that is starting an agent in the background."""
        return self.root / "start.lock"

    @property
    def lock(self) -> Path:
        """Held by the agent as long as it lives; its text is the agent's pid."""
        return self.root / "agent.lock"

    @property
    def log(self) -> Path:
        """The log of an agent that runs in the background."""
        return self.root / "log" / "agent.log"

    @property
    def jobs(self) -> Path:
        """What is remembered of gets in the background."""
        return self.state / "jobs.json"

    @property
    def etcd(self) -> Path:
        """The embedded etcd: its data, its log, its recorded pid."""
        return self.root / "etcd"

    @classmethod
    def resolve(cls, explicit: Path | None = None, environ: Mapping[str, str] | None = None) -> Home:
        """The home that ``explicit`` names, else ``MOONCAKE_HOME``, else the XDG one. Raises ``NoHome``."""
        environ = os.environ if environ is None else environ
        named = explicit or environ.get("MOONCAKE_HOME")
        if named:
            root = Path(os.path.abspath(_expanded(str(named))))
            return cls(root=root, state=root / "state", run=root / "run", single=True)
        root = state_directory(environ) / host_name()
        runtime = _runtime_directory(environ)
        run = root / "run" if runtime is None else runtime / "mooncake"
        return cls(root=root, state=root / "state", run=run, single=False)

    def create(self) -> None:
        """Make the directories, for their owner only. Raises ``HomeUnusable``."""
        from p2pstore.agent.private import make_own, make_root  # noqa: PLC0415 - most commands find a home that is made

        make_root(self.root)
        for directory in (self.state, self.run, self.log.parent, self.etcd):
            make_own(directory)
        try:
            self._choose_sockets()
        except OSError as error:
            raise HomeUnusable(path=error.filename or self.run, detail=error.strerror or error) from error

    def _choose_sockets(self) -> None:
        """See that the sockets lie where they can, and where nobody else can reach them."""
        from engine.files.abilities import abilities_of  # noqa: PLC0415 - as above

        can = abilities_of(self.run)
        if can.private and can.sockets:
            use_itself(self.run)
        else:
            use_another_place(self.run, can.why or "others can enter it")

    def share(self, group: str) -> int:
        """Let a group reach the agent's socket; the group's number. Raises ``BadConfig`` and ``HomeUnusable``."""
        from p2pstore.agent.private import group_id, let_pass  # noqa: PLC0415 - as above

        gid = group_id(group)
        if not self.single:
            raise BadConfig(origin=f"group {group}", detail="name a home that the group can reach, with --home DIR")
        if place_of(self.run) != self.run:
            raise BadConfig(origin=f"group {group}", detail=f"the file system of {self.root} cannot hold the socket")
        for directory in (self.root, self.run):
            let_pass(directory, gid)
        return gid

    def arguments(self) -> list[str]:
        """The options with which another command line names this home."""
        return ["--home", str(self.root)] if self.single else []


def old_log(path: Path, number: int) -> Path:
    """Where the log before the one at ``path`` lies, or the ``number`` before it."""
    return path.with_name(f"{path.name}.{number}")


def host_name() -> str:
    """A directory's name for this host: its own name, with what tells hosts apart that are all called localhost."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip(".")[:MAX_HOST_NAME]
    if name.partition(".")[0] not in {"", "localhost"}:
        return name
    try:
        return f"localhost-{_MACHINE_ID.read_text(encoding='ascii').strip()[:12]}"
    except (OSError, UnicodeError):
        return "localhost"


def _expanded(path: str) -> str:
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):  # it stays where there is no such user, and would become a directory called "~"
        raise NoHome(detail=f"{path!r} is nobody's home directory")
    return expanded


def state_directory(environ: Mapping[str, str]) -> Path:
    """Where a user's homes lie that were not named, of all hosts. Raises ``NoHome``."""
    given = environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(given):
        return Path(given) / "mooncake"
    home = home_directory(environ)
    if home is None:
        raise NoHome(detail=f"HOME is not set, and user {os.getuid()} has no entry in passwd that names a directory")
    return home / ".local" / "state" / "mooncake"


def _runtime_directory(environ: Mapping[str, str]) -> Path | None:
    """``$XDG_RUNTIME_DIR``, or what it would be in a login: cron and ssh must find the same agent."""
    for candidate in (environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.getuid()}"):
        with contextlib.suppress(OSError):
            if os.path.isabs(candidate) and os.stat(candidate).st_uid == os.getuid():
                return Path(candidate)
    return None


def listens(path: Path) -> bool:
    """Whether anybody listens on the socket there; it need not be accepted. Waits for nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            with socket_address(path) as address:
                probe.connect(address)
        except BlockingIOError:  # so many wait to be accepted that there is no room for one more
            return True
        except (OSError, PathNotFound, StorageError):
            return False
        return True


@contextlib.contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """A path to ``bind`` or ``connect`` with that names the socket ``path`` and is short enough for ``sun_path``.

    A long path is reached through an open descriptor of its directory (proc(5), ``/proc/self/fd``), which lives as
    long as the ``with`` block.

    Raises:
        PathNotFound: the socket's directory does not exist.
        StorageError: it may not be entered.
    """
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        yield str(path)
        return
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise PathNotFound(path=path.parent) from error
    except OSError as error:
        raise StorageError(path=path.parent, detail=error.strerror or error) from error
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
