from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pstore.errors import MetadataRefused
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import DIGEST, MIB, FakeAgent, HangUntilCancelled, progress

VERSION = {
    "event": "version",
    "name": "m",
    "tag": "",
    "reference": f"m@sha256:{DIGEST}",
    "manifest": DIGEST,
    "previous": "9" * 64,
    "size": 5 * MIB,
    "files": 1,
    "creator": "alpha",
    "created": 1.0,
}
SHOWN = {key: value for key, value in VERSION.items() if key != "event"}
LINE = f"m@sha256:{DIGEST[:12]}  5.0 MiB by alpha, was {'9' * 12}\n"


@contextmanager
def watching(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "mooncake_cli", "watch", *arguments]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended_by_ctrl_c(process: subprocess.Popen[str], agent: FakeAgent) -> tuple[str, str]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert agent.cancelled.wait(60)
    return out, err


@pytest.mark.parametrize(("option", "line"), [([], LINE), (["--json"], json.dumps(SHOWN) + "\n")])
def test_a_line_for_each_and_ctrl_c_ends_it_without_a_word(
    agent: FakeAgent, environment: dict[str, str], option: list[str], line: str
) -> None:
    agent.answers["POST /v1/watch"] = [VERSION, HangUntilCancelled()]
    with watching(environment, "m", "--initial", *option) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == line
        assert ended_by_ctrl_c(process, agent) == ("", "")
    assert agent.body_of("POST /v1/watch") == {"name": "m", "initial": True}


def test_a_command_is_run_with_what_it_is_about(agent: FakeAgent, environment: dict[str, str], tmp_path: Path) -> None:
    agent.answers["POST /v1/watch"] = [VERSION, {**VERSION, "manifest": "8" * 64}, HangUntilCancelled()]
    seen = tmp_path / "seen"
    command = f"env | grep '^MOONCAKE_' | sort >> {seen}; echo printed"
    with watching(environment, "m", "--exec", command) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        assert (lines[0], lines[1], lines[3]) == (LINE, "printed\n", "printed\n")
        assert ended_by_ctrl_c(process, agent) == ("", "")
    told = dict(line.split("=", 1) for line in seen.read_text().splitlines()[: len(seen.read_text().splitlines()) // 2])
    assert {key: told[f"MOONCAKE_{key}"] for key in ("OBJECT", "TAG", "DIGEST", "PREVIOUS", "SIZE", "CREATOR")} == {
        "OBJECT": "m",
        "TAG": "",
        "DIGEST": DIGEST,
        "PREVIOUS": "9" * 64,
        "SIZE": str(5 * MIB),
        "CREATOR": "alpha",
    }
    assert told["MOONCAKE_REFERENCE"] == f"m@sha256:{DIGEST}"
    assert told["MOONCAKE_HOME"] == str(agent.home.root)


@pytest.mark.parametrize(
    ("command", "how"), [("exit 3", "ended with status 3"), ("kill -9 $$", "was ended by signal 9")]
)
def test_a_command_that_fails_is_told_and_the_watch_goes_on(
    agent: FakeAgent, environment: dict[str, str], command: str, how: str
) -> None:
    agent.answers["POST /v1/watch"] = [VERSION, VERSION, HangUntilCancelled()]
    with watching(environment, "m", "--exec", command) as process:
        assert process.stderr is not None
        for _ in range(2):
            assert process.stderr.readline() == f"the command for m@sha256:{DIGEST} {how}; still watching\n"
        ended_by_ctrl_c(process, agent)


def test_it_ends_when_its_reader_has(agent: FakeAgent, environment: dict[str, str]) -> None:
    """``| head -1`` has what it wants, and the next version may be hours away."""
    gone = threading.Event()
    agent.answers["POST /v1/watch"] = [VERSION, gone, progress(0, 0), HangUntilCancelled()]
    with watching(environment, "m") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == LINE
        process.stdout.close()
        gone.set()
        assert (process.wait(60), process.stderr.read()) == (141, "")


def test_with_json_only_versions_are_on_standard_output(agent: FakeAgent, environment: dict[str, str]) -> None:
    agent.answers["POST /v1/watch"] = [VERSION, HangUntilCancelled()]
    with watching(environment, "m", "--json", "--exec", "echo printed") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "printed\n"
        out, err = ended_by_ctrl_c(process, agent)
    assert (json.loads(out), err) == (SHOWN, "")


def test_notes_are_for_people_and_errors_end_it(agent: FakeAgent, mooncake: Mooncake) -> None:
    note = {"event": "note", "text": "the metadata server answers again"}
    agent.answers["POST /v1/watch"] = [note, MetadataRefused(url="etcd://x", detail="no")]
    done = mooncake("watch", "m")
    assert done.returncode == 7
    assert done.stderr.startswith("the metadata server answers again\nerror: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m@3f78"], "m@3f78 is one version for ever"),
        (["a b"], "bad name 'a b'"),
        (["m", "--exec", " "], "--exec is empty"),
    ],
)
def test_what_makes_no_sense(agent: FakeAgent, mooncake: Mooncake, arguments: list[str], said: str) -> None:
    done = mooncake("watch", *arguments)
    assert (done.returncode, said in done.stderr) == (2, True)
    assert agent.requests == []
