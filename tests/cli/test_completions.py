from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mooncake_cli.names import BUDGET, BUDGET_VARIABLE, names_within
from p2pstore.agent.home import Home
from scripts.generate_completions import DIRECTORY, scripts
from tests.cli.fake_agent import OBJECT, FakeAgent

WAIT = 120.0

EVERY_COMMAND = [
    "bench",
    "cache",
    "config",
    "doctor",
    "etcd",
    "get",
    "history",
    "info",
    "jobs",
    "list",
    "metadata",
    "node",
    "proxy",
    "register",
    "serve",
    "store",
    "tag",
    "top",
    "topology",
    "unregister",
    "verify",
    "watch",
]


@pytest.mark.parametrize("name", ["mooncake.bash", "_mooncake", "mooncake.fish"])
def test_the_scripts_are_not_stale(name: str) -> None:
    assert (DIRECTORY / name).read_text() == scripts()[name], "run 'python -m scripts.generate_completions'"


@pytest.fixture
def shell_environment(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """``mooncake`` on PATH, as an installation would put it there."""
    command = tmp_path / "bin" / "mooncake"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m mooncake_cli "$@"\n')
    command.chmod(0o755)
    patient = {BUDGET_VARIABLE: "60"}  # what is tested is what is offered, not how fast this machine is
    return {**environment, **patient, "PATH": f"{command.parent}:{environment['PATH']}"}


@pytest.fixture
def agent(agent: FakeAgent) -> FakeAgent:
    objects = [{**OBJECT, "name": name} for name in ("models/llama", "models/qwen")]

    def answer(query: str) -> dict[str, object]:
        prefix = query.partition("prefix=")[2].partition("&")[0].replace("%2F", "/")
        return {"objects": [item for item in objects if str(item["name"]).startswith(prefix)], "next": None}

    agent.answers["GET /v1/objects"] = answer
    return agent


class Bash:
    def __init__(self, environment: dict[str, str], cwd: Path) -> None:
        self.environment, self.cwd = environment, cwd

    def __call__(self, *words: str) -> list[str]:
        script = (
            'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
            '_mooncake mooncake "${COMP_WORDS[COMP_CWORD]}"; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        command = ["bash", "--norc", "-c", script, "bash", str(DIRECTORY / "mooncake.bash"), "mooncake", *words]
        done = subprocess.run(
            command, env=self.environment, cwd=self.cwd, capture_output=True, text=True, timeout=WAIT, check=True
        )
        assert done.stderr == ""
        return sorted(line for line in done.stdout.splitlines() if line)


class Fish:
    def __init__(self, environment: dict[str, str], cwd: Path) -> None:
        self.environment, self.cwd = environment, cwd

    def __call__(self, *words: str) -> list[str]:
        script = f"source {DIRECTORY / 'mooncake.fish'}; complete -C '{' '.join(['mooncake', *words])}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", script],
            env=self.environment,
            cwd=self.cwd,
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=True,
        )
        assert done.stderr == ""
        return sorted(line.partition("\t")[0] for line in done.stdout.splitlines() if line)


@pytest.fixture(params=["bash", "fish"])
def complete(request: pytest.FixtureRequest, shell_environment: dict[str, str], tmp_path: Path) -> Bash | Fish:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed here")
    kind = {"bash": Bash, "fish": Fish}[request.param]
    return kind(shell_environment, tmp_path / "cwd")


def test_commands(complete: Bash | Fish) -> None:
    assert complete("") == EVERY_COMMAND
    assert complete("--home", "/x", "re") == ["register"]
    assert complete("node", "sta") == ["start", "status"]
    assert complete("-v", "config", "") == ["show"]


def test_options(complete: Bash | Fish) -> None:
    own = "--background --dry-run --exclude --force --include --no-seed --peer --range --retries --tensors --timeout"
    own += " --transport --update --wait --wipe"
    assert complete("get", "--") == sorted(f"{own} --config --help --home --json --metadata --quiet --verbose".split())
    assert complete("register", "x", "--chu") == ["--chunk-size"]
    assert complete("node", "start", "--ins") == ["--insecure"]
    assert complete("--ver") == ["--verbose", "--version"]
    assert complete("etcd", "inspect", "--pre") == ["--prefix"]


def test_values_of_options(complete: Bash | Fish, tmp_path: Path) -> None:
    assert complete("get", "--transport", "") == ["auto", "local", "rdma", "tcp"]
    assert complete("register", "--hash", "b") == ["blake3"]
    (tmp_path / "cwd" / "homes").mkdir()
    (tmp_path / "cwd" / "home.toml").write_text("")
    assert [word.rstrip("/") for word in complete("--home", "ho")] == ["homes"]
    assert {word.rstrip("/") for word in complete("--config", "ho")} == {"homes", "home.toml"}


def test_object_names(complete: Bash | Fish, agent: FakeAgent) -> None:
    assert complete("info", "") == ["models/llama", "models/qwen"]
    assert complete("get", "models/q") == ["models/qwen"]
    assert complete("list", "models/l") == ["models/llama"]
    assert complete("unregister", "-q", "x") == []


def test_object_names_of_the_home_that_the_line_names(complete: Bash | Fish, agent: FakeAgent, tmp_path: Path) -> None:
    assert complete("--home", str(tmp_path / "none"), "info", "") == []
    assert complete("info", "--home", str(agent.home.root), "") == ["models/llama", "models/qwen"]


def test_files(complete: Bash | Fish, agent: FakeAgent, tmp_path: Path) -> None:
    (tmp_path / "cwd" / "models here").mkdir()
    (tmp_path / "cwd" / "models.tar").write_text("")

    def plain(words: list[str]) -> set[str]:
        return {word.rstrip("/").replace("\\", "") for word in words}

    assert plain(complete("register", "mod")) == {"models here", "models.tar"}
    assert plain(complete("register", "x", "y", "mod")) == {"models here", "models.tar"}
    more = {"models/llama", "models/qwen"}
    assert plain(complete("get", "models/llama", "mod")) == {"models here", "models.tar"} | more
    assert plain(complete("verify", "mod")) == {"models here", "models.tar", "models/llama", "models/qwen"}


def test_nothing_without_an_agent_and_none_is_started(complete: Bash | Fish, home: Home) -> None:
    assert complete("info", "") == []
    assert not home.root.exists()


def test_zsh(agent: FakeAgent, shell_environment: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed here")
    functions = tmp_path / "functions"
    functions.mkdir()
    shutil.copy(DIRECTORY / "_mooncake", functions)
    (tmp_path / ".zshrc").write_text(
        f"fpath=({functions} $fpath)\nautoload -Uz compinit\ncompinit -u -d {tmp_path}/dump\n"
        "PS1='ready> '\nunsetopt zle_bracketed_paste\n"
        "zstyle ':completion:*' list-prompt ''\nLISTMAX=0\n"
    )
    shell = Zsh({**shell_environment, "ZDOTDIR": str(tmp_path), "HOME": str(tmp_path)}, tmp_path / "cwd")
    try:
        assert "mooncake register " in shell.type("mooncake regi\t", "register ")
        assert "mooncake node logs " in shell.type("mooncake node lo\t", "logs ")
        assert "--chunk-size " in shell.type("mooncake register --chu\t", "--chunk-size ")
        assert "--transport tcp " in shell.type("mooncake get --transport tc\t", "tcp ")
        assert "info models/qwen " in shell.type("mooncake info models/q\t", "models/qwen ")
        listing = shell.type("mooncake node \t", "logs ")
        assert "Start the agent in the background." in listing
    finally:
        shell.close()


class Zsh:
    """An interactive zsh on a pseudo terminal: its completion works nowhere else."""

    def __init__(self, environment: dict[str, str], cwd: Path) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            ["zsh", "-d", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environment, "TERM": "dumb", "COLUMNS": "200"},
            cwd=cwd,
            start_new_session=True,
        )
        os.close(slave)
        self.read_until("ready> ")

    def read_until(self, words: str, seconds: float = WAIT) -> str:
        seen = ""
        deadline = time.monotonic() + seconds
        while words not in seen:
            left = deadline - time.monotonic()
            assert left > 0, f"zsh did not show {words!r} but {seen!r}"
            if select.select([self.master], [], [], left)[0]:
                seen += os.read(self.master, 4096).decode("utf-8", "replace")
        return seen

    def type(self, keys: str, until: str) -> str:
        os.write(self.master, keys.encode())
        seen = self.read_until(until)
        # Kill the line and enter nothing.
        os.write(self.master, b"\x15\r")
        return seen + self.read_until("ready> ")

    def close(self) -> None:
        self.process.kill()
        self.process.wait(60)
        os.close(self.master)


def test_an_agent_that_hangs_is_given_up(agent: FakeAgent) -> None:
    agent.answers["GET /v1/objects"] = lambda _: agent.cancelled.wait(60)
    began = time.monotonic()
    assert names_within(BUDGET, "", str(agent.home.root)) == []
    elapsed = time.monotonic() - began
    agent.cancelled.set()
    # Without its end the call would last as long as the client's own timeout, 30 s.
    assert BUDGET <= elapsed < 25


def test_the_process_does_not_wait_for_the_hanging_call(agent: FakeAgent, shell_environment: dict[str, str]) -> None:
    asked: list[float] = []

    def hangs(_: str) -> object:
        asked.append(time.monotonic())
        return agent.cancelled.wait(60)

    agent.answers["GET /v1/objects"] = hangs
    hurried = {**shell_environment, BUDGET_VARIABLE: str(BUDGET)}
    done = subprocess.run(
        ["mooncake", "complete-names", ""], env=hurried, capture_output=True, timeout=WAIT, check=True
    )
    ended = time.monotonic()
    agent.cancelled.set()
    assert (done.stdout, done.stderr) == (b"", b"")
    # The call would last for 30 s; where the process was slow, its time was over before it asked.
    assert not asked or ended - asked[0] < 25


@pytest.mark.parametrize("answer", [b"garbage", {"objects": 1}, {"objects": [{"name": "a\x1b[2J\nb"}]}])
def test_garbage_is_nothing(agent: FakeAgent, answer: object) -> None:
    agent.answers["GET /v1/objects"] = answer
    assert names_within(5, "", str(agent.home.root)) == []


def test_a_broken_configuration_is_nothing(shell_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "cwd" / "mooncake.toml").write_text("nonsense")
    done = subprocess.run(
        ["mooncake", "complete-names", ""],
        env=shell_environment,
        cwd=tmp_path / "cwd",
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"", b"")


def test_asking_for_names_does_not_import_typer() -> None:
    code = (
        "import sys, mooncake_cli.main, mooncake_cli.names as n; n._names.__globals__; "
        "n.names_within(5, '', '/nonexistent'); print([m for m in ('typer', 'rich', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
