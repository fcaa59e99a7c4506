from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mooncake_cli import command_line
from mooncake_cli.app import COMMANDS
from p2pstore.agent.home import Home
from p2pstore.errors import (
    AgentRunning,
    MetadataUnavailable,
    MooncakeError,
    PartialResult,
    StorageError,
    TransportUnavailable,
)
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import OBJECT, FakeAgent

HEAVY = (
    "rich",
    "tqdm",
    "grpc",
    "aiohttp",
    "asyncio",
    "xxhash",
    "ssl",
    "http.client",
    "p2pstore.agent.client",
    "platformdirs",
    "json",
    "shlex",
    "mooncake_cli.output",
    "p2pstore.errors",
)


def test_help_lists_every_command_with_its_help(mooncake: Mooncake) -> None:
    done = mooncake("--help")
    assert (done.returncode, done.stderr) == (0, "")
    words = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    for name, lazy in COMMANDS.items():
        assert lazy.help in words[name]


def test_help_imports_nothing_heavy(environment: dict[str, str]) -> None:
    code = (
        "import sys, typer\n"
        # Older versions of Typer import rich.
        "before = set(sys.modules)\n"
        "sys.argv = ['mooncake', '--help']\n"
        "from mooncake_cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules and m not in before], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("command", [["register"], ["node"], ["node", "run"], ["etcd", "inspect"]])
def test_every_command_has_help(mooncake: Mooncake, command: list[str]) -> None:
    for option in ("--help", "-h"):
        done = mooncake(*command, option)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"Usage: mooncake {' '.join(command)} ")


def test_version(mooncake: Mooncake) -> None:
    from engine._version import __version__

    assert mooncake("--version").stdout == f"mooncake {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["regster"], "No such command 'regster'. Did you mean 'register'?"),
        (["node", "statsu"], "Did you mean 'status'?"),
        (["xyzzy"], "No such command 'xyzzy'."),
        (["ls"], "No such command 'ls'. Did you mean 'list'?"),
        (["rm", "models/llama"], "No such command 'rm'. Did you mean 'unregister'?"),
        (["version"], "No such command 'version'. Did you mean 'mooncake --version'?"),
        (["help"], "No such command 'help'. Did you mean 'mooncake --help'?"),
        (["help", "get"], "Did you mean 'mooncake get --help'?"),
        (["node", "help", "stop"], "Did you mean 'mooncake node stop --help'?"),
        (["store", "help", "xyzzy"], "Did you mean 'mooncake store --help'?"),
        (["store", "rm"], "No such command 'rm'. Did you mean 'remove'?"),
        (["pull"], "Did you mean 'get'?"),
        (["status"], "Did you mean 'node status'?"),
        (["list", "--frobnicate"], "No such option"),
        (["node", "logs", "-n", "many"], "Invalid value for '-n'"),
        (["node", "logs", "-n", "-1"], "Invalid value for '-n'"),
        (["top", "--interval", "nan"], "Invalid value for '--interval': nan is no number"),
        (["metadata", "serve", "--expire", "NaN"], "Invalid value for '--expire': nan is no number"),
        (["list", "a", "b"], "unexpected extra argument"),
    ],
)
def test_usage_errors_end_with_2(mooncake: Mooncake, arguments: list[str], words: str) -> None:
    done = mooncake(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    done = mooncake(*arguments, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert json.loads(done.stderr)["error"]["exit_code"] == 2


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["register", "a", "b", "--name", "x"], "register"),
        (["list", "a", "b"], "list"),
        (["node", "logs", "-n", "-1"], "node logs"),
        (["store", "get", "a"], "store get"),
        (["nosuch"], ""),
    ],
)
def test_programs_get_the_advice_that_people_get(mooncake: Mooncake, arguments: list[str], command: str) -> None:
    advice = " ".join(["mooncake", *command.split(), "--help"])
    assert json.loads(mooncake(*arguments, "--json").stderr)["error"]["advice"] == f"see '{advice}'"
    assert advice in mooncake(*arguments).stderr


@pytest.mark.parametrize("arguments", [["--json", "list"], ["list", "--json"], ["list", "--json", "x"]])
def test_global_options_stand_before_and_after(agent: FakeAgent, mooncake: Mooncake, arguments: list[str]) -> None:
    agent.answers["GET /v1/objects"] = {"objects": [], "next": None}
    assert mooncake(*arguments).stdout == '{"objects": []}\n'


def test_the_home_nearest_to_the_end_wins(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/objects"] = {"objects": [OBJECT], "next": None}
    done = mooncake("--home", "/nonexistent", "list", "-q", "--home", str(agent.home.root))
    assert done.stdout == "models/llama\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MooncakeError(detail="d"), 1),
        (MetadataUnavailable(url="u", detail="d"), 6),
        (AgentRunning(home="h", pid=1), 7),
        (StorageError(path="p", detail="d"), 8),
        (TransportUnavailable(transport="rdma", detail="d"), 9),
        (PartialResult(detail="d", todo="t"), 10),
    ],
)
def test_an_error_ends_with_its_status(agent: FakeAgent, mooncake: Mooncake, error: MooncakeError, status: int) -> None:
    agent.answers["GET /v1/objects"] = error
    done = mooncake("list")
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == f"error: {error}\n" + (f"hint: {error.hint}\n" if error.hint else "")
    done = mooncake("list", "--json")
    assert (done.returncode, done.stdout) == (status, "")
    assert len(done.stderr.splitlines()) == 1
    assert json.loads(done.stderr)["error"]["message"] == str(error)
    assert mooncake("list", "-q").stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "help_of"),
    [(["get", "x", "y", "--transport"], "get"), (["store", "why", "--engines", "a"], "store why"), (["--home"], "")],
)
def test_an_option_without_its_value_leads_to_the_help(mooncake: Mooncake, arguments: list[str], help_of: str) -> None:
    done = mooncake(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"hint: see '{' '.join(['mooncake', *help_of.split()])} --help'"


def test_a_defect_is_a_sentence_and_a_traceback_only_when_asked(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/objects"] = {"objects": [{"nonsense": 1}]}
    done = mooncake("list")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("internal error: KeyError: 'name'\nthis is a bug;")
    assert "Traceback" in mooncake("list", MOONCAKE_DEBUG="1").stderr
    assert "Traceback" in mooncake("list", "-v").stderr
    done = mooncake("list", "-q", "--json", "--home", str(agent.home.root))
    assert done.returncode == 0, "JSON passes on what the agent says"


COMMAND = ("mooncake_cli.commands.list", "p2pstore.agent.client")
"""What is loaded when the command's name is known, and by the command."""


@pytest.mark.parametrize("module", ["engine.errors", "mooncake_cli.invocation", "typer", "mooncake_cli.app", *COMMAND])
def test_an_interrupt_while_modules_are_loaded_is_no_traceback(environment: dict[str, str], module: str) -> None:
    code = (
        "import sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "sys.argv = ['mooncake', 'list']\n"
        "from mooncake_cli.main import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_reader_that_goes_away_is_no_error(agent: FakeAgent, environment: dict[str, str]) -> None:
    many = [{**OBJECT, "name": f"object-{i:06}"} for i in range(20_000)]
    agent.answers["GET /v1/objects"] = {"objects": many, "next": None}
    command = f"{sys.executable} -m mooncake_cli list -q | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "object-000000\n141\n"
    assert done.stderr == ""


def test_a_result_that_cannot_be_written_is_told_as_such(agent: FakeAgent, environment: dict[str, str]) -> None:
    agent.answers["GET /v1/objects"] = {"objects": [OBJECT], "next": None}
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mooncake_cli", "list", "-q"],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr.splitlines()[0] == "error: standard output: No space left on device"
        assert len(done.stderr.splitlines()) == 2, "and a hint"
        assert done.returncode == StorageError.exit_code
        agent.answers["GET /v1/objects"] = MetadataUnavailable(url="u", detail="d")
        lost = subprocess.run(
            [sys.executable, "-m", "mooncake_cli", "list"], env=environment, stderr=full, timeout=60, check=False
        )
    assert lost.returncode == MetadataUnavailable.exit_code, "a message that is lost changes no status"


@pytest.mark.parametrize(
    "closing", [">&-", "2>&-", "<&-", "<&- >&- 2>&-", "1</dev/null"], ids=["out", "err", "in", "all", "read-only"]
)
@pytest.mark.parametrize("words", ["list -q", "--help", "list --help", "--version"])
def test_a_result_for_which_there_is_no_standard_output_is_lost_as_date_has_it(
    agent: FakeAgent, environment: dict[str, str], words: str, closing: str
) -> None:
    agent.answers["GET /v1/objects"] = {"objects": [OBJECT], "next": None}
    command = f"{sys.executable} -m mooncake_cli {words} {closing}"
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    lost = ">&-" in closing.split() or closing.startswith("1<")
    assert done.returncode == (StorageError.exit_code if lost else 0), done
    if lost and "2>&-" not in closing:
        assert done.stderr.startswith("error: standard output: it is not open for writing\nhint: send it to a file")
    else:
        assert done.stderr == ""
    assert bool(done.stdout) == (not lost)


def test_a_command_that_prints_nothing_needs_no_standard_output(environment: dict[str, str]) -> None:
    command = f"{sys.executable} -m mooncake_cli node status >&-"
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "no agent runs" in done.stderr) == (3, True), done


def _full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _unread() -> int:
    """A pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("messages", [_full, _unread])
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], 2),
        (["frobnicate"], 2),
        (["get"], 2),
        (["list", "--bogus"], 2),
        (["get", "--json"], 2),
        (["node", "status"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_error_that_nobody_can_be_told_keeps_its_status(
    environment: dict[str, str], messages: Callable[[], int], arguments: list[str], status: int
) -> None:
    stderr = messages()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mooncake_cli", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            timeout=60,
            check=False,
        )
    finally:
        os.close(stderr)
    assert (done.returncode, done.stdout) == (status, b"")


def test_ascii_terminals_get_escapes(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/objects"] = {"objects": [{**OBJECT, "creator": "käse"}], "next": None}
    done = mooncake("list", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "k\\xe4se" in done.stdout


def test_the_installed_command_is_this_one() -> None:
    from importlib import metadata

    try:
        distribution = metadata.distribution("mooncake-cli")
    except metadata.PackageNotFoundError:
        pytest.skip("mooncake-cli is not installed in this environment")
    entry = {point.name: point.value for point in distribution.entry_points if point.group == "console_scripts"}
    assert entry["mooncake"] == "mooncake_cli.main:main"


@pytest.mark.parametrize(
    "arguments",
    [("--home", "~no-such-user-here/x", "node", "status"), ("--config", "~no-such-user-here/x", "config", "show")],
)
def test_nobodys_home_directory_ends_with_2(mooncake: Mooncake, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = mooncake(*arguments)
    assert done.returncode == 2, done.stderr
    assert "'~no-such-user-here/x' is nobody's home directory" in done.stderr
    assert os.listdir(tmp_path / "cwd") == []


def test_nobodys_home_in_the_environment_ends_with_2(mooncake: Mooncake) -> None:
    done = mooncake("node", "status", MOONCAKE_HOME="~no-such-user-here/x")
    assert done.returncode == 2, done.stderr
    assert "is nobody's home directory" in done.stderr


def test_in_a_directory_that_was_removed(environment: dict[str, str], tmp_path: Path, home: Home) -> None:
    """Relative paths start nowhere, and the rest works."""
    home.create()
    script = 'mkdir gone; cd gone; rmdir ../gone; exec "$0" -m mooncake_cli "$@"'
    run = functools.partial(
        subprocess.run, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    for arguments in (("register", "x", "--name", "x"), ("verify", "./x")):
        done = run(["sh", "-c", script, sys.executable, *arguments])
        assert done.returncode == 2, done.stderr
        assert "the current directory was removed" in done.stderr
        assert "internal error" not in done.stderr
    assert run(["sh", "-c", script, sys.executable, "config", "show"]).returncode == 0
    assert run(["sh", "-c", script, sys.executable, "node", "status"]).returncode == 3


@pytest.mark.parametrize("arguments", [["--help"], ["list", "--help"], ["config", "show"], ["--version"]], ids=" ".join)
def test_a_full_standard_output_is_no_bug(mooncake: Mooncake, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mooncake_cli", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 8
    assert done.stderr.startswith("error: standard output: ")
    assert "bug" not in done.stderr


def test_a_help_that_nobody_reads_to_the_end(mooncake: Mooncake) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "mooncake_cli", "--help"], stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_advice_names_the_help_of_the_command(mooncake: Mooncake) -> None:
    done = mooncake("register", "a", "b", "--name", "x")
    assert done.returncode == 2
    assert "hint: see 'mooncake register --help'" in done.stderr


def test_a_command_that_a_signals_handler_ends_has_the_status_of_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("mooncake_cli.app.root_command", lambda: SimpleNamespace(main=command))
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        assert command_line.run(["bench", "broadcast"]) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
