"""``mooncake store master`` as a process: what it says, where it listens, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import signals
from mooncake_cli.app import root_command
from mooncake_cli.commands.store_master import _milliseconds, _one, _place
from mooncake_cli.invocation import Invocation
from p2pstore.errors import UsageError
from p2pstore.kv.master.journal import Journal
from p2pstore.kv.master.run import pool_settings as of_settings
from p2pstore.kv.master.run import serve
from p2pstore.kv.pool import settings as pool_settings
from p2pstore.kv.pool.pool import Pool
from p2pstore.settings.master_keys import ALLOCATIONS
from p2pstore.settings.settings import Settings
from tests.cli.conftest import Mooncake
from tests.cli.store_processes import Process
from tests.ports import reserved_port

SECONDS = 60

Start = Callable[..., "Started"]


class Started:
    """A master on free ports."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate(timeout=SECONDS)
        self.told = json.loads(line)
        self.admin = self.told["metrics"]

    def ask(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=SECONDS) as answer:
            return str(answer.read().decode())

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, errors


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def start(*options: str, **more: str) -> Started:
        free = () if "--rpc_port" in options else ("--listen", ":0", "--metrics", ":0")
        process = subprocess.Popen(
            [sys.executable, "-m", "mooncake_cli", "store", "master", "--json", *free, *options],
            env={**environment, **more},
            cwd=tmp_path / "cwd",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return Started(process)

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=SECONDS)


@pytest.mark.parametrize("number", signals.ending())
def test_it_serves_until_it_is_told_to_end(start: Start, mooncake: Mooncake, number: int) -> None:
    master = start()
    assert master.told["address"].startswith("127.0.0.1:")
    assert master.told["allow"] is None
    assert json.loads(master.ask("/health"))["service_ready"] is True
    host, _, port = master.told["address"].rpartition(":")
    socket.create_connection((host, int(port)), SECONDS).close()
    status = json.loads(mooncake("store", "status", "--json", "--admin", master.admin).stdout)
    assert (status["address"], status["state"]) == (master.told["address"], "serving")
    assert mooncake("store", "list", "--admin", master.admin).stderr == "there are no keys\n"
    assert mooncake("store", "info", "x", "--admin", master.admin).returncode == 3
    assert mooncake("store", "remove", "x", "--admin", master.admin).returncode == 3
    assert mooncake("store", "remove", "--all", "-q", "--admin", master.admin).stdout == "0\n"
    causes = mooncake("store", "why", "-q", "--admin", master.admin).stdout.split()
    assert causes == ["no-call", "no-memory"]
    assert master.end(number) == (0, "")


def test_what_people_read(environment: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mooncake_cli", "store", "master", "--listen", ":0", "--metrics", ":0", "--allow", "10.0.0.0/8"],
        env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
    finally:
        process.terminate()
        output, errors = process.communicate(timeout=SECONDS)
    assert line.startswith("the master serves clients at 127.0.0.1:")
    assert line.endswith(", to this host and 10.0.0.0/8 alone\n")
    assert (process.returncode, output, errors) == (0, "", "")


def test_a_port_that_somebody_has(start: Start, mooncake: Mooncake) -> None:
    master = start()
    for options in (
        ("--listen", master.told["address"], "--metrics", ":0"),
        ("--listen", ":0", "--metrics", master.admin),
    ):
        done = mooncake("store", "master", *options)
        assert done.returncode == 2
        assert "error: cannot listen on 127.0.0.1:" in done.stderr
        assert "Traceback" not in done.stderr
    assert master.end()[0] == 0


def test_a_state_that_outlives_it(
    start: Start, mooncake: Mooncake, environment: dict[str, str], tmp_path: Path
) -> None:
    """Killed, it knows its keys again, once the client that holds them has found the next one."""
    state = str(tmp_path / "state")
    places = ("--rpc_port", str(reserved_port()), "--metrics_port", "0", "--state", state)
    master = start(*places)
    assert (master.told["state"], master.told["keys"]) == (state, 0)
    variables = {"MOONCAKE_MASTER": master.told["address"]}
    giver = Process({**environment, **variables}, tmp_path, "give", "8MiB")
    try:
        (tmp_path / "value").write_text("kept")
        assert mooncake("store", "put", "key", str(tmp_path / "value"), **variables).returncode == 0
        done = mooncake("store", "master", "--state", state, "--listen", ":0", "--metrics", ":0")
        assert done.returncode == 7
        assert f"another master keeps its state in {state}" in done.stderr
        assert master.end(signal.SIGKILL)[0] == -signal.SIGKILL
        again = start(*places)
        assert again.told["keys"] == 1
        deadline = time.monotonic() + SECONDS
        while mooncake("store", "get", "key", "-", **variables).stdout != "kept":
            assert time.monotonic() < deadline
        assert mooncake("store", "remove", "key", "--force", "--admin", again.admin).returncode == 0
        assert again.end(signal.SIGKILL)[0] == -signal.SIGKILL
        third = start(*places)
        assert mooncake("store", "get", "key", "-", **variables).returncode == 3
        assert third.end()[0] == 0
    finally:
        giver.end()


def test_a_directory_that_cannot_be_used(mooncake: Mooncake, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = mooncake("store", "master", "--state", str(tmp_path / "file" / "x"), "--listen", ":0", "--metrics", ":0")
    assert done.returncode == 8
    assert "the master's state in" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "options", [("--listen", "0.0.0.0:0", "--metrics", ":0"), ("--listen", ":0", "--metrics", "0.0.0.0:0")]
)
def test_an_open_address_takes_a_word(mooncake: Mooncake, options: tuple[str, ...]) -> None:
    done = mooncake("store", "master", *options)
    assert done.returncode == 7
    assert "refusing to serve the store on 0.0.0.0:0" in done.stderr
    assert "--allow NETWORK, or say --insecure" in done.stderr


def test_a_name_that_is_no_address_is_not_told_to_be_an_open_one(mooncake: Mooncake) -> None:
    done = mooncake("store", "master", "--listen", "999.1.1.1:0", "--metrics", ":0")
    assert (done.returncode, "999.1.1.1" in done.stderr, "refusing" in done.stderr) == (2, True, False)


def test_an_open_address_with_a_word(start: Start) -> None:
    assert start("--listen", "0.0.0.0:0", "--insecure").end()[0] == 0
    assert start("--listen", "0.0.0.0:0", "--allow", "10.0.0.0/8").told["allow"] == "10.0.0.0/8"


def test_settings_of_the_environment(start: Start, mooncake: Mooncake) -> None:
    master = start(MOONCAKE_MASTER_ALLOW="10.0.0.1", MOONCAKE_MASTER_LEASE="500ms")
    assert master.told["allow"] == "10.0.0.1"
    done = mooncake("store", "master", "--listen", ":0", MOONCAKE_MASTER_WATERMARK="90")
    assert done.returncode == 2
    assert "environment MOONCAKE_MASTER_WATERMARK: '90' is no share" in done.stderr


def settings_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *options: str) -> Settings:
    """What a master would be run with."""
    seen: list[Settings] = []

    async def serve(settings: Settings, _: object) -> None:
        seen.append(settings)

    monkeypatch.setattr("p2pstore.kv.master.run.serve", serve)
    monkeypatch.setattr("engine.files.open_limit.allow_many_files", lambda: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = ["store", "master", *options]
    root_command().main(words, prog_name="mooncake", standalone_mode=False, obj=Invocation(words))
    return seen[0]


def test_what_upstreams_flags_mean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_of(
        monkeypatch,
        tmp_path,
        *("--rpc_port", "1", "--metrics_port", "2", "--metrics_host", "10.0.0.1", "--default_kv_lease_ttl", "5000"),
        *("--eviction_ratio=0.1", "--eviction_high_watermark_ratio=0.95", "--client_ttl=20", "--enable_multi_tenants"),
        *("--put_start_discard_timeout_sec", "40", "--put_start_release_timeout_sec", "500", "--enable_offload"),
        *("--allocation_strategy", "free_ratio_first", "--max_kv_soft_pin_ttl", "48h", "--offload_on_evict"),
        *("--default_kv_soft_pin_ttl", "60000", "--promotion_on_hit"),
    )
    assert (settings.master_listen, settings.master_metrics) == ("127.0.0.1:1", "10.0.0.1:2")
    assert of_settings(settings) == pool_settings.PoolSettings(
        lease_ms=5000,
        soft_pin_ms=60_000,
        max_soft_pin_ms=48 * 3600 * 1000,
        high_watermark=0.95,
        eviction_ratio=0.1,
        client_ttl=20.0,
        put_discard=40.0,
        put_release=500.0,
        allocation="free_ratio_first",
        tenants=True,
        offload=True,
        offload_on_evict=True,
        promotion_on_hit=True,
    )


def test_what_our_options_mean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_of(
        monkeypatch,
        tmp_path,
        *("--listen", ":7", "--metrics", "[::1]:8", "--allow", "10.0.0.0/8", "--insecure", "--state", "s"),
        *(
            "--lease",
            "5s",
            "--soft-pin",
            "1m",
            "--max-soft-pin",
            "48h",
            "--watermark",
            "0.8",
            "--eviction-ratio",
            "0.2",
        ),
        *("--client-ttl", "20", "--put-discard", "40", "--put-release", "500", "--allocation", "local_first"),
        *(
            "--max-keys",
            "1000",
            "--tenant-quotas",
            "a=1GiB, b=c=10MiB",
            "--offload",
            "--offload-on-evict",
            "--promotion",
        ),
    )
    assert (settings.master_listen, settings.master_metrics) == ("127.0.0.1:7", "[::1]:8")
    assert (settings.master_allow, settings.master_insecure) == ("10.0.0.0/8", True)
    assert settings.master_state == tmp_path / "s"
    assert of_settings(settings) == pool_settings.PoolSettings(
        lease_ms=5000,
        soft_pin_ms=60_000,
        max_soft_pin_ms=48 * 3600 * 1000,
        high_watermark=0.8,
        eviction_ratio=0.2,
        client_ttl=20.0,
        put_discard=40.0,
        put_release=500.0,
        allocation="local_first",
        max_keys=1000,
        tenants=True,
        tenant_quotas={"a": 1 << 30, "b=c": 10 << 20},
        offload=True,
        offload_on_evict=True,
        promotion_on_hit=True,
    )


def test_two_ways_to_say_one_thing(mooncake: Mooncake) -> None:
    done = mooncake("store", "master", "--rpc_port", "1", "--listen", ":2")
    assert done.returncode == 2
    assert "say --listen or --rpc_address and --rpc_port, not both" in done.stderr


def test_a_time_of_upstreams_is_in_milliseconds() -> None:
    assert [_milliseconds(text) for text in (None, "5000", "5s", "soon")] == [None, "5000ms", "5s", "soon"]


def test_a_place_said_in_upstreams_way() -> None:
    assert _place(None, None, None, 5, "a or b") is None
    assert _place("x", None, None, 5, "a or b") == "x"
    assert _place(None, None, 7, 5, "a or b") == "127.0.0.1:7"
    assert _place(None, "::", None, 5, "a or b") == "[::]:5"
    with pytest.raises(UsageError, match="say a or b, not both"):
        _one("x", "y", "a or b")


def test_the_settings_are_those_of_the_pool() -> None:
    """Settings come before the store in the floor plan, so they have its words and defaults a second time."""
    assert ALLOCATIONS == pool_settings.ALLOCATIONS
    plain = Settings.load({}, environ={}, cwd=Path("/nonexistent"), system=Path("/none"))
    assert of_settings(plain) == pool_settings.PoolSettings()


async def test_while_it_reads_its_state_it_says_so_and_can_be_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def opening(_: Path, __: Pool) -> Iterator[None]:
        while True:
            yield

    monkeypatch.setattr(Journal, "opening", opening)
    port = reserved_port()
    flags = {"master_listen": "127.0.0.1:0", "master_metrics": f"127.0.0.1:{port}", "master_state": tmp_path / "state"}
    settings = Settings.load(flags, environ={}, cwd=tmp_path, system=Path("/none"))
    told: list[object] = []
    serving = asyncio.create_task(serve(settings, told.append))

    def ask() -> dict[str, object]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=SECONDS) as answer:
            found: dict[str, object] = json.load(answer)
            return found

    deadline = time.monotonic() + SECONDS
    while True:
        with contextlib.suppress(OSError):
            health = await asyncio.to_thread(ask)
            break
        assert time.monotonic() < deadline
    assert (health["ha_state"], health["service_ready"]) == ("recovering", False)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, SECONDS)
    assert not told
