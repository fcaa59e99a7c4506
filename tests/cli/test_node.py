from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import signals
from p2pstore.agent.client import AgentClient
from p2pstore.agent.home import Home
from p2pstore.errors import AgentNotRunning, NodeEnded, to_wire
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import FakeAgent, status_answer, task_answer

IN_MEMORY = ("--metadata", "memory://cli-tests")
"""An agent that needs no etcd."""


@pytest.fixture
def clean_end(home: Home, mooncake: Mooncake) -> Iterator[None]:
    yield
    mooncake("node", "stop")


def test_status_for_people(agent: FakeAgent, mooncake: Mooncake) -> None:
    done = mooncake("node", "status")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()}
    assert rows == {
        "node": "alpha",
        "pid": f"{os.getpid()}, up 1 min 15 s",
        "home": str(agent.home.root),
        "metadata": "etcd://127.0.0.1:2379",
        "control": "127.0.0.1:7301",
        "data": "127.0.0.1:7302",
        "serving": "2 objects, 3.0 MiB",
    }


def test_status_tells_of_running_gets_limits_and_metrics(agent: FakeAgent, mooncake: Mooncake) -> None:
    running = {"name": "m\n/x", "dest": "/d", "unit": "B", "done": 1, "total": 4, "peers": 2, "seconds": 75.0}
    agent.answers["GET /v1/status"] |= {
        "gets": 1,
        "gets_waiting": 1,
        "running_gets": [
            {**running, "step": "pulling", "percent": 25.0},
            {**running, "name": "n", "step": "waiting for its turn", "percent": None, "peers": 0},
        ],
        "cache_quota": 2 << 40,
        "upload_limit": 500 << 20,
        "download_limit": 0,
        "metrics": "http://127.0.0.1:9401/metrics",
    }
    shown = mooncake("node", "status").stdout
    assert "serving   2 objects, 3.0 MiB; 1 get running, 1 waiting\n" in shown
    assert "getting   m\\n/x to /d: pulling 25 % from 2 peers, for 1 min 15 s\n" in shown
    assert "getting   n to /d: waiting for its turn, for 1 min 15 s\n" in shown
    assert "quota     2.0 TiB for replicas\n" in shown
    assert "upload    at most 500.0 MiB/s\n" in shown
    assert "download" not in shown
    assert "metrics   http://127.0.0.1:9401/metrics\n" in shown


def test_metrics_by_option_and_a_slip(mooncake: Mooncake, clean_end: None) -> None:
    done = mooncake("node", "start", *IN_MEMORY, "--metrics", "127.0.0.1:x")
    assert done.returncode == 2
    assert "--metrics: 'x' in '127.0.0.1:x' is not a port" in done.stderr
    done = mooncake("node", "start", *IN_MEMORY, "--metrics", "127.0.0.1:0")
    assert done.returncode == 0, done.stderr
    (url,) = (line.split()[1] for line in done.stdout.splitlines() if line.startswith("metrics"))
    assert b"mooncake_agent_build_info" in urllib.request.urlopen(url, timeout=60).read()


def test_status_for_scripts(agent: FakeAgent, mooncake: Mooncake) -> None:
    assert json.loads(mooncake("node", "status", "--json").stdout) == status_answer(agent.home)
    assert mooncake("node", "status", "-q").stdout == f"{os.getpid()}\n"


def test_status_tells_of_metadata_that_does_not_answer(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/status"] = {**status_answer(agent.home), "metadata_ok": False, "gets": 1}
    shown = mooncake("node", "status").stdout
    assert "etcd://127.0.0.1:2379  (does not answer now; it is tried again)" in shown
    assert "; 1 get running" in shown


def test_a_start_tells_what_the_running_agent_lacks(agent: FakeAgent, mooncake: Mooncake) -> None:
    """Whoever raises a limit and starts the agent must hear that it had been started before."""
    agent.answers["GET /v1/status"]["process"] = {"open_files": 1}
    done = mooncake("node", "start")
    assert done.returncode == 7
    assert "note: the agent may have 1 open files, and this command" in done.stderr


def test_status_tells_of_an_address_that_others_cannot_reach(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/status"]["warnings"] = ["this node listens on 127.0.1.1, which is loopback"]
    assert "warning   this node listens on 127.0.1.1, which is loopback\n" in mooncake("node", "status").stdout


def test_whoever_starts_an_agent_hears_that_others_cannot_reach_it(mooncake: Mooncake, clean_end: None) -> None:
    done = mooncake("node", "start", *IN_MEMORY, MOONCAKE_ADVERTISE="198.51.100.1")
    assert done.returncode == 0, done.stderr
    text = "this node listens on 127.0.0.1, which is loopback, though others are told 198.51.100.1"
    assert f"warning: {text}" in done.stderr
    assert f"warning   {text}" in done.stdout


def test_status_tells_of_tasks_that_failed(agent: FakeAgent, mooncake: Mooncake) -> None:
    failed = {"failures": 3, "last_error": "RuntimeError: a\nbug", "last_failure": "2026-08-22T10:00:00Z"}
    tasks = [
        task_answer("lease keeper", state="restarting", **failed),
        task_answer("source watcher"),
        task_answer("data watcher", policy="go on", **{**failed, "failures": 1}),
    ]
    agent.answers["GET /v1/status"] = {**status_answer(agent.home), "tasks": tasks}
    done = mooncake("node", "status")
    assert done.returncode == 0
    assert [line.split(maxsplit=1)[1] for line in done.stdout.splitlines() if line.startswith("failed")] == [
        r"lease keeper, 3 times, last at 2026-08-22T10:00:00Z: RuntimeError: a\nbug; it will be started again",
        r"data watcher, once, last at 2026-08-22T10:00:00Z: RuntimeError: a\nbug",
    ]
    assert json.loads(mooncake("node", "status", "--json").stdout)["tasks"] == tasks


def test_an_agent_that_could_not_go_on_has_left_its_reason(
    mooncake: Mooncake, home: Home, tmp_path: Path, clean_end: None
) -> None:
    home.create()
    (tmp_path / "cwd" / "f").write_bytes(b"x" * 100)
    ended = NodeEnded(task="lease keeper", failures=10, detail="RuntimeError: a bug")
    home.end_error.write_text(json.dumps({"error": to_wire(ended), "time": "2026-08-22T10:00:00Z"}))
    why = f"no agent runs in {home.root} since 2026-08-22T10:00:00Z: {ended}"
    assert mooncake("node", "stop").stderr == f"nothing to end: {why}\n"
    for command in (("node", "status"), ("list",)):
        done = mooncake(*command)
        assert (done.returncode, done.stdout) == (3, "")
        assert f"error: {why}\n" in done.stderr
        assert "mooncake node logs" in done.stderr
    done = mooncake("register", "f", *IN_MEMORY)
    assert why in done.stderr
    assert "started an agent" in done.stderr
    assert mooncake("node", "status").returncode == 0
    mooncake("node", "stop")
    assert why not in mooncake("node", "status").stderr


def test_status_without_an_agent_ends_with_3(mooncake: Mooncake, home: Home) -> None:
    done = mooncake("node", "status")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"error: no agent runs in {home.root}\nhint: run 'mooncake node start'\n"


def test_start_status_and_stop(mooncake: Mooncake, home: Home, clean_end: None) -> None:
    done = mooncake("node", "start", "--node", "gamma", "--json", *IN_MEMORY)
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert (status["node"], status["home"]) == ("gamma", str(home.root))
    assert "started an agent in the background" in done.stderr
    assert os.path.isdir(f"/proc/{status['pid']}")

    again = mooncake("node", "start", *IN_MEMORY)
    assert again.returncode == 7
    assert f"an agent already runs in {home.root} (pid {status['pid']})" in again.stderr
    assert json.loads(mooncake("node", "status", "--json").stdout)["pid"] == status["pid"]

    stopped = mooncake("node", "stop", "--json")
    assert stopped.returncode == 0
    document = json.loads(stopped.stdout)
    assert (document["pid"], document["terminated"], document["etcd_pid"]) == (status["pid"], False, None)
    again = mooncake("node", "stop", "--json")
    assert (again.returncode, json.loads(again.stdout)["pid"]) == (0, None)
    assert again.stderr == ""
    again = mooncake("node", "stop")
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr == f"nothing to end: no agent runs in {home.root}\n"


def test_register_starts_an_agent_and_says_so(mooncake: Mooncake, home: Home, tmp_path: Path, clean_end: None) -> None:
    (tmp_path / "cwd" / "f").write_bytes(b"x" * 100)
    done = mooncake("register", "f", *IN_MEMORY)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "started an agent in the background; 'mooncake node stop' ends it"
    assert mooncake("list", "-q").stdout == "f\n"
    assert mooncake("register", "f", "-q").stdout == "f\n"


def test_a_start_that_fails_ends_with_its_status(mooncake: Mooncake, home: Home) -> None:
    done = mooncake("node", "start", "--listen", "0.0.0.0", *IN_MEMORY)
    assert done.returncode == 7
    assert "without a cluster secret" in done.stderr
    assert "--insecure" in done.stderr
    assert mooncake("node", "status").returncode == 3


@pytest.mark.parametrize("number", signals.ending())
def test_run_serves_until_it_is_told_to_end(
    environment: dict[str, str], home: Home, tmp_path: Path, number: int
) -> None:
    command = [sys.executable, "-m", "mooncake_cli", "node", "run", "--node", "delta", *IN_MEMORY]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        seen = ""
        while "node delta serves" not in seen:
            line = process.stderr.readline()
            assert line, f"it ended: {seen}"
            seen += line
        assert AgentClient(home).status()["pid"] == process.pid
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 0
    with pytest.raises(AgentNotRunning):
        AgentClient(home).status()


@pytest.mark.parametrize(("began", "asks"), [("there", "other"), ("there", "missing"), ("missing", "there")])
def test_an_agent_is_found_from_another_runtime_directory(
    mooncake: Mooncake, environment: dict[str, str], tmp_path: Path, began: str, asks: str
) -> None:
    """One that a service or cron started, before the login that makes the directory, or with one of its own."""
    del environment["MOONCAKE_HOME"]
    for name in ("there", "other"):
        (tmp_path / name).mkdir(0o700)
    start = mooncake("node", "start", "-q", *IN_MEMORY, XDG_RUNTIME_DIR=str(tmp_path / began))
    assert start.returncode == 0, start.stderr
    here = {"XDG_RUNTIME_DIR": str(tmp_path / asks)}
    try:
        assert mooncake("node", "status", "-q", **here).stdout == start.stdout
        assert mooncake("node", "start", *IN_MEMORY, **here).returncode == 7, "no second one"
    finally:
        stop = mooncake("node", "stop", **here)
    assert stop.stderr.startswith(f"ended the agent (pid {start.stdout.strip()}) in ")
    assert "SIGTERM" not in stop.stderr


def test_run_refuses_where_one_runs(mooncake: Mooncake, home: Home, clean_end: None) -> None:
    pid = mooncake("node", "start", "-q", *IN_MEMORY).stdout.strip()
    done = mooncake("node", "run", *IN_MEMORY)
    assert done.returncode == 7
    assert f"(pid {pid})" in done.stderr


@pytest.fixture
def log(home: Home) -> Path:
    home.create()
    home.log.write_text("".join(f"line {i}\x1b\n" for i in range(100_000)))
    return home.log


def test_logs(mooncake: Mooncake, log: Path) -> None:
    lines = mooncake("node", "logs").stdout.splitlines()
    assert (len(lines), lines[0], lines[-1]) == (50, "line 99950\\x1b", "line 99999\\x1b")
    assert mooncake("node", "logs", "-n", "2", "-q").stdout == "line 99998\\x1b\nline 99999\\x1b\n"
    assert mooncake("node", "logs", "-n", "0").stdout == ""
    document = json.loads(mooncake("node", "logs", "-n", "1", "--json").stdout)
    assert document == {"path": str(log), "lines": ["line 99999\\x1b"]}


def test_no_log_ends_with_3(mooncake: Mooncake) -> None:
    assert mooncake("node", "logs").returncode == 3


def test_logs_go_on_over_a_replaced_file(environment: dict[str, str], log: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mooncake_cli", "node", "logs", "-n", "1", "-f"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "line 99999\\x1b\n"
        with log.open("a") as stream:
            stream.write("half")
            stream.flush()
            stream.write(" and half\n")
        assert process.stdout.readline() == "half and half\n"
        log.rename(log.with_name("old.log"))
        log.write_text("a new file\n")
        assert process.stdout.readline() == "a new file\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130


def test_following_the_log_ends_when_the_reader_has(environment: dict[str, str], log: Path) -> None:
    command = [sys.executable, "-m", "mooncake_cli", "node", "logs", "-n", "1", "-f"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "line 99999\\x1b\n"
            process.stdout.close()
            assert (process.wait(60), process.stderr.read()) == (141, "")
        finally:
            process.kill()


def test_logs_go_on_in_the_log_before(home: Home, mooncake: Mooncake) -> None:
    home.create()
    home.log.write_text("five\nsix\n")
    home.log.with_name("agent.log.1").write_text("three\nfour\n")
    home.log.with_name("agent.log.2").write_text("one\ntwo\n")
    assert mooncake("node", "logs", "-n", "1").stdout == "six\n"
    assert mooncake("node", "logs", "-n", "3").stdout == "four\nfive\nsix\n"
    assert mooncake("node", "logs", "-n", "99").stdout.split() == ["one", "two", "three", "four", "five", "six"]


def test_who_follows_the_log_loses_no_line_when_it_begins_anew(home: Home, environment: dict[str, str]) -> None:
    home.create()
    home.log.write_text("there\n")
    command = [sys.executable, "-m", "mooncake_cli", "node", "logs", "-f"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "there\n"
            with home.log.open("a") as log:
                log.write("first\n")
                log.flush()
                assert process.stdout.readline() == "first\n"
                home.log.rename(home.log.with_name("agent.log.1"))
                log.write("written to the old one\n")
                log.flush()
                home.log.write_text("anew\n")
            assert process.stdout.readline() == "written to the old one\n"
            assert process.stdout.readline() == "anew\n"
        finally:
            process.kill()


def test_the_log_of_an_agent_begins_anew(mooncake: Mooncake, home: Home, clean_end: None, tmp_path: Path) -> None:
    home.create()
    home.log.write_text("x" * 2000 + "\n")
    done = mooncake("node", "start", *IN_MEMORY, MOONCAKE_LOG_SIZE="1000")
    assert done.returncode == 0, done.stderr
    until = time.monotonic() + 60
    while not (rotated := home.log.with_name("agent.log.1")).exists():
        assert time.monotonic() < until
        time.sleep(0.1)
    assert rotated.read_text().startswith("x" * 2000)
    assert mooncake("node", "stop").returncode == 0
    assert "ended" in home.log.read_text()
