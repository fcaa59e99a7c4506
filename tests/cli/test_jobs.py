"""``mooncake jobs``, and what ``get --background`` begins."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from mooncake_cli.commands.jobs import again, how_far
from p2pstore.errors import DestinationBusy, JobNotFound, NoLivePeer, to_wire
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import MIB, FakeAgent, HangUntilCancelled, get_result, progress, status_answer

RESULT = {key: value for key, value in get_result().items() if key != "event"}
FAILURE = to_wire(NoLivePeer(name="models/llama", detail="nobody"))


def job(**changes: Any) -> dict[str, Any]:
    answer = {
        "id": 3,
        "name": "models/llama",
        "dest": "/data/llama",
        "state": "running",
        "began": time.time() - 120,
        "ended": None,
        "progress": {"done": 3 * MIB, "total": 10 * MIB, "peers": 2},
        "notes": [],
        "asked": {"transport": "auto", "seed": True, "wait": 0, "retries": 0, "timeout": None},
        "result": None,
        "error": None,
        "exit_code": None,
    }
    return {**answer, **changes}


def failed(**changes: Any) -> dict[str, Any]:
    return job(id=4, state="failed", ended=time.time(), error=FAILURE, exit_code=5, **changes)


def test_a_get_in_the_background(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/jobs"] = job()
    options = ("--background", "--wait", "--retries", "2", "--timeout", "2h", "--include", "*.json", "--no-seed")
    done = mooncake("get", "models/llama", "/data/llama", *options)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "job 3 gets models/llama to /data/llama\n'mooncake jobs wait 3' waits for it, 'mooncake jobs' lists all\n"
    )
    body = agent.body_of("POST /v1/jobs")
    assert (body["name"], body["dest"]) == ("models/llama", "/data/llama")
    assert (body["wait"], body["retries"], body["timeout"]) == ("for-ever", 2, 7200.0)
    assert (body["include"], body["seed"], body["range"]) == (["*.json"], False, None)
    assert mooncake("get", "models/llama", "/data/llama", "--background", "-q").stdout == "3\n"
    assert json.loads(mooncake("get", "models/llama", "/data/llama", "--background", "--json").stdout) == job(
        began=agent.answers["POST /v1/jobs"]["began"]
    )


def test_several_in_the_background(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/objects"] = {"objects": [{"name": "data/a"}, {"name": "data/b"}], "next": None}
    agent.answers["POST /v1/jobs"] = job()
    done = mooncake("get", "data/", "models/llama", "/d/", "--background", "-q")
    assert (done.returncode, done.stdout) == (0, "3\n3\n3\n")
    asked = [(body["name"], body["dest"]) for _, path, body in agent.requests if path == "/v1/jobs"]
    assert asked == [("data/a", "/d/a"), ("data/b", "/d/b"), ("models/llama", "/d/llama")]
    agent.answers["POST /v1/jobs"] = DestinationBusy(path="/d/x")
    assert mooncake("get", "models/llama", "/d/", "--background").returncode == 7
    assert mooncake("get", "data/", "/d/", "--background").returncode == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["n", "-", "--background"], "--background is for files"),
        (["n", "/d", "--background", "--dry-run"], "a dry run is over at once"),
    ],
)
def test_what_makes_no_sense_there(agent: FakeAgent, mooncake: Mooncake, words: list[str], message: str) -> None:
    done = mooncake("get", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not agent.requests


def test_a_list(agent: FakeAgent, mooncake: Mooncake) -> None:
    jobs = [job(), failed(), job(id=5, state="done", ended=time.time(), result=RESULT, exit_code=0)]
    agent.answers["GET /v1/jobs"] = {"jobs": jobs}
    done = mooncake("jobs")
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["ID", "STATE", "OBJECT", "DEST", "BEGAN", "PROGRESS"]
    assert rows[0].endswith("pulling 30% of 10.0 MiB from 2 peers")
    assert "no live peer has what is missing of 'models/llama'" in rows[1]
    assert rows[2].endswith("8.0 MiB pulled in 2.0 s")
    assert mooncake("jobs", "list").stdout.splitlines()[0] == head
    assert json.loads(mooncake("jobs", "--json").stdout) == {"jobs": jobs}
    assert mooncake("jobs", "-q").stdout == "3\n4\n5\n"
    agent.answers["GET /v1/jobs"] = {"jobs": []}
    done = mooncake("jobs")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "no jobs; 'mooncake get NAME DEST --background' begins one\n"


def test_one_is_shown(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/jobs/4"] = failed(notes=["peer alpha went away"], asked={"seed": False, "peers": ["a:1"]})
    done = mooncake("jobs", "show", "4")
    assert done.returncode == 0, done.stderr
    shown = [line.split(None, 1) for line in done.stdout.splitlines()]
    assert ["job", "4, failed"] in shown
    assert ["status", "5"] in shown
    assert ["note", "peer alpha went away"] in shown
    assert ["again", "mooncake get --no-seed --peer=a:1 -- models/llama /data/llama"] in shown
    assert json.loads(mooncake("jobs", "show", "4", "--json").stdout)["error"] == FAILURE
    assert mooncake("jobs", "show", "4", "-q").stdout == "failed\n"


def test_its_end_is_that_of_the_get(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/jobs/3/wait"] = [progress(1, 2, peers=2), get_result()]
    done = mooncake("jobs", "wait", "3")
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("verified at /data/llama; this node serves it now\n")
    assert json.loads(mooncake("jobs", "wait", "3", "--json").stdout) == RESULT
    agent.answers["POST /v1/jobs/3/wait"] = [{"event": "error", "error": FAILURE}]
    done = mooncake("jobs", "wait", "3", "--json")
    assert done.returncode == 5
    assert json.loads(done.stderr)["error"]["message"] == FAILURE["message"]


def test_an_agent_that_ends_meanwhile(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/jobs/3/wait"] = [progress(1, 2)]
    done = mooncake("jobs", "wait", "3", "--json")
    assert done.returncode == 5
    assert json.loads(done.stderr)["error"]["type"] == "JobCut"


def test_ctrl_c_leaves_the_job_alone(agent: FakeAgent, environment: dict[str, str]) -> None:
    agent.answers["POST /v1/jobs/3/wait"] = [{"event": "note", "text": "pulling now"}, HangUntilCancelled()]
    command = [sys.executable, "-m", "mooncake_cli", "jobs", "wait", "3"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "pulling now\n"
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
        assert process.wait(60) == 130
    assert err.startswith("job 3 goes on; 'mooncake jobs wait 3' waits again")
    assert [path for _, path, _ in agent.requests] == ["/v1/jobs/3/wait"]


def test_cancelled(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/jobs/3/cancel"] = job(state="cancelled")
    assert mooncake("jobs", "cancel", "3").stderr == "job 3 is cancelled\n"
    agent.answers["POST /v1/jobs/3/cancel"] = job(state="done", result=RESULT)
    done = mooncake("jobs", "cancel", "3")
    assert (done.returncode, done.stderr) == (0, "job 3 had ended before: it is done\n")


def test_numbers_of_no_job(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/jobs/7"] = JobNotFound(id=7)
    assert mooncake("jobs", "show", "7").returncode == 3
    for word in ("x", "-1", "3.5", ""):
        assert mooncake("jobs", "show", "--", word).returncode == 2
    done = mooncake("jobs", "status")
    assert done.returncode == 2
    assert "Did you mean 'show'?" in done.stderr


def test_the_help_of_the_group(mooncake: Mooncake) -> None:
    for words in (["jobs", "--help"], ["jobs", "-h"]):
        done = mooncake(*words)
        assert done.returncode == 0
        assert "cancel" in done.stdout


def test_no_agent(mooncake: Mooncake) -> None:
    assert mooncake("jobs").returncode == 3
    assert mooncake("jobs", "wait", "1").returncode == 3


def test_the_status_has_them(agent: FakeAgent, mooncake: Mooncake) -> None:
    jobs = [job(id=number) for number in range(12)]
    agent.answers["GET /v1/status"] = {**status_answer(agent.home), "jobs": jobs}
    lines = mooncake("node", "status").stdout.splitlines()
    shown = [line.split(None, 1)[1] for line in lines if line.startswith("job ")]
    assert shown[0] == "0: models/llama to /data/llama: pulling 30% of 10.0 MiB from 2 peers"
    assert len(shown) == 10
    assert any(line.startswith("jobs") and "and 2 more" in line for line in lines)


def test_how_far() -> None:
    waiting = job(progress={"done": 0, "total": 0, "peers": 0, "step": "waiting", "unit": ""})
    assert how_far(waiting) == "waiting"
    assert how_far(job(progress={})) == "pulling"
    assert (
        how_far(job(progress={"done": 1, "total": 4, "step": "looking", "unit": "files"})) == "looking 25% of 4 files"
    )
    assert how_far(job(result={**RESULT, "bytes_pulled": 0})) == "nothing had to be pulled"


def test_the_command_that_resumes() -> None:
    assert again(job(asked={"update": True}), None) == "mooncake get --update -- models/llama /data/llama"
    asked = {"force": True, "transport": "tcp", "range": "0-5", "include": ["a b"], "tensors": None, "wait": math.inf}
    made = again(job(name="-odd", asked=asked), "/a home")
    assert made == (
        "mooncake --home '/a home' get --force '--include=a b' --range=0-5 --transport=tcp -- -odd /data/llama"
    )
