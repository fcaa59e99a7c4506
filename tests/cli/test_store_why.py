from __future__ import annotations

import json
import socket
from pathlib import Path

from mooncake_cli.commands import store_why as why_module
from p2pstore.kv.master.advice import ADVICE, ENDED
from p2pstore.kv.master.why_clients import why_callers
from p2pstore.kv.master.why_key import why_key
from tests.cli.conftest import Mooncake
from tests.cli.printed_commands import parse, printed_commands
from tests.cli.store_processes import Pool
from tests.p2pstore.kv.master.table import KEY, Served
from tests.p2pstore.kv.master.test_why_clients import CALLERS
from tests.p2pstore.kv.master.test_why_key import KEYS
from tests.p2pstore.kv.master.why_facts import POOL
from tests.ports import closed_port


def test_one_key(mooncake: Mooncake, store: Served) -> None:
    done = mooncake("store", "why", "nothing", "--admin", store.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "nobody has put it, as far back as this master remembers; it has been up for 3.0 s",
        f"  run 'mooncake store why --admin {store.address}' to see whose puts fail",
    ]
    assert mooncake("store", "why", KEY, "-q", "--admin", store.address).stdout == "readable\nleased\n"


def test_clients(mooncake: Mooncake, store: Served) -> None:
    answer = json.loads(mooncake("store", "why", "--json", "--admin", store.address).stdout)
    assert [finding["cause"] for finding in answer["findings"]] == ["unknown-calls", "failed-200"]
    done = mooncake("store", "why", "--client", "10.0.0.9", "-q", "--admin", store.address)
    assert done.stdout == "no-call\n"
    assert mooncake("store", "why", KEY, "--client", "x", "--admin", store.address).returncode == 2


def test_a_client_by_its_name(mooncake: Mooncake, store: Served) -> None:
    done = mooncake("store", "why", "--client", "localhost", "--admin", store.address)
    assert done.stdout.startswith(("no client at 127.0.0.1 has called", "no client at ::1 has called"))
    assert why_module._address("[::1]:5") == "[::1]:5"
    assert why_module._address("10.0.0.3") == "10.0.0.3"
    done = mooncake("store", "why", "--client", "nobody.invalid", "--admin", store.address)
    assert done.returncode == 2
    assert "the name 'nobody.invalid' is not known here" in done.stderr


def test_nobody_answers(mooncake: Mooncake) -> None:
    admin, master = f"127.0.0.1:{closed_port()}", f"127.0.0.1:{closed_port()}"
    done = mooncake("store", "why", "--admin", admin, "--master", master)
    assert done.returncode == 6
    assert f"{admin} cannot be used: connection refused" in done.stderr
    assert f"its port for clients, {master}, refuses connections, too: no master runs there" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as clients:
        done = mooncake("store", "why", "--admin", admin, "--master", f"127.0.0.1:{clients.getsockname()[1]}")
    assert "accepts them: the metrics port may be another one, or on loopback alone" in done.stderr


def test_who_takes_calls_and_is_no_master(mooncake: Mooncake, pool: Pool) -> None:
    """The way there is right then, and nothing is said of it."""
    done = mooncake("store", "why", "--admin", pool.variables["MOONCAKE_MASTER"])
    assert done.returncode == 6
    assert "it may be the port for clients" in done.stderr
    assert "the metrics port may be another one" not in done.stderr


def test_two_engines_by_their_files(mooncake: Mooncake, tmp_path: Path) -> None:
    model = tmp_path / "llama"
    model.mkdir()
    (model / "config.json").write_text('{"torch_dtype": "float32"}')
    for name, more in {"a": (), "b": (), "c": ("--block-size", "32", "--hash-seed", "1")}.items():
        done = mooncake("serve", "init", "vllm", str(model), "--dir", str(tmp_path / name), *more)
        assert done.returncode == 0, done.stderr
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert mooncake("store", "why", "-q", "--engines", a, f"{b}/mooncake.json").stdout == "same\n"
    assert mooncake("store", "why", "-q", "--engines", a, c).stdout == "other-block-size\nother-seed\n"
    done = mooncake("store", "why", "--engines", a, c)
    assert done.stdout.splitlines()[:2] == [
        f"their blocks have other sizes: {a} has 16, {c} has 32",
        "  start both with the same --block-size",
    ]
    answer = json.loads(mooncake("store", "why", "--json", "--engines", a, f"{a}/vllm.json").stdout)
    assert [each["cause"] for each in answer["findings"]] == ["same"]


def test_an_engine_by_its_address(mooncake: Mooncake, store: Served) -> None:
    """The metrics of something else."""
    done = mooncake("store", "why", "--engines", f"http://{store.address}", f"http://{store.address}")
    assert done.returncode == 2
    assert "it is no vLLM" in done.stderr
    nobody = f"http://127.0.0.1:{closed_port()}"
    done = mooncake("store", "why", "--engines", nobody, nobody)
    assert "does not show its metrics: connection refused" in done.stderr
    assert done.returncode == 6
    assert f"the engine at {nobody} does not show its metrics" in done.stderr


def test_what_is_no_engine(mooncake: Mooncake, tmp_path: Path) -> None:
    done = mooncake("store", "why", "--engines", "nothing", "nothing")
    assert done.returncode == 2
    assert "'nothing' is no file, no key of vLLM's, and no http:// address" in done.stderr
    for text, said in {"{": "is not JSON", "[]": "is no JSON object", "{}": "says nothing of a store"}.items():
        (tmp_path / "x.json").write_text(text)
        done = mooncake("store", "why", "--engines", str(tmp_path / "x.json"), "nothing")
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    done = mooncake("store", "why", "key", "--engines", "a", "b")
    assert "leave out the key or client" in done.stderr


def test_each_command_that_an_advice_names_is_one() -> None:
    found = [finding for key, _, _ in KEYS.values() for finding in why_key(key, POOL)]
    found += [finding for caller, pool, _, _ in CALLERS.values() for finding in why_callers([caller], pool)]
    advice = [finding.advice for finding in found] + [*ADVICE.values(), *(each.advice for each in ENDED.values())]
    commands = [command for text in advice for command in printed_commands(text)]
    assert commands
    for command in commands:
        parse(command)
