from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from p2pstore.errors import DestinationExists, NoLivePeer, TagNotFound
from p2pstore.objects.units import format_seconds
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import FakeAgent, HangUntilCancelled, get_result, progress


def test_people_are_told_what_came(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get"] = [
        {"event": "note", "text": "peer alpha went away"},
        progress(1, 2, peers=2),
        get_result(),
    ]
    done = mooncake("get", "models/llama", "/data/llama")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "peer alpha went away\n"
        "got models/llama: 8.0 MiB by tcp from 2 peers in 2.0 s, 4.0 MiB/s, 2.0 MiB reused\n"
        "verified at /data/llama; this node serves it now\n"
    )


def test_json_has_the_promised_keys(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get"] = [progress(1, 2, peers=2), get_result()]
    done = mooncake("get", "models/llama", "/data/llama", "--json")
    assert done.stderr == ""
    document = json.loads(done.stdout)
    promised = {"name", "manifest", "dest", "size", "bytes_pulled", "bytes_reused", "seconds", "transport", "peers"}
    assert promised <= set(document)
    assert document["peers"] == {"alpha": 5 << 20, "beta": 3 << 20}


def test_some_files_or_some_bytes(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get-chosen"] = [get_result(files=2, seeding=False)]
    patterns = ("--include", "*.json", "--include", "a/", "--exclude", "b*")
    done = mooncake("get", "models/llama", "/data/llama", *patterns)
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "got 2 files of models/llama: 8.0 MiB by tcp from 2 peers in 2.0 s, 4.0 MiB/s, 2.0 MiB reused\n"
        "verified at /data/llama\n"
    )
    body = agent.body_of("POST /v1/get-chosen")
    assert (body["include"], body["exclude"], body["range"]) == (["*.json", "a/"], ["b*"], None)
    mooncake("get", "models/llama/a b.bin", "/data/", "--range", "0-99")
    body = agent.body_of("POST /v1/get-chosen")
    assert (body["name"], body["dest"], body["range"]) == ("models/llama/a b.bin", "/data/a b.bin", "0-99")


def test_a_path_in_the_object_needs_no_other_call(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get"] = [get_result(files=1, bytes_pulled=0, dest="/data/config.json")]
    done = mooncake("get", "models/llama/config.json", "/data/")
    assert done.stderr.startswith("1 file of models/llama is complete at /data/config.json: nothing had to be pulled")
    assert agent.body_of("POST /v1/get")["dest"] == "/data/config.json"


def test_a_dry_run_of_some_files(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get-chosen"] = [get_result(files=1, dry_run=True)]
    done = mooncake("get", "models/llama", "/d", "--include", "x", "--dry-run")
    assert done.stderr.startswith("would pull 8.0 MiB for 1 file from 2 peers, and write ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["models/../etc/passwd", "/data/"], "has the part '..'"),
        (["models/llama/..", "/data/"], "has the part '..'"),
        (["models//x", "/data/"], "is absolute"),
        (["models/a//x", "/data/"], "has an empty part"),
        (["/models", "/data/"], "empty"),
        (["models", "/data/", "--range", "5"], "--range: '5' is no range"),
        (["models", "/data/", "--range", "5-3"], "ends before it begins"),
        (["models", "/data/", "--timeout", "0"], "--timeout: nothing comes in 0; leave it out to set no limit"),
    ],
)
def test_what_cannot_be_meant(agent: FakeAgent, mooncake: Mooncake, words: list[str], message: str) -> None:
    done = mooncake("get", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not agent.requests


def test_several_go_into_a_directory(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/objects"] = {"objects": [{"name": "data/a"}, {"name": "data/b/c"}], "next": None}
    agent.answers["POST /v1/get"] = [get_result()]
    done = mooncake("get", "data/*", "models/llama", "/d/", "--json")
    assert done.returncode == 0, done.stderr
    assert [(body["name"], body["dest"]) for _, path, body in agent.requests if path == "/v1/get"] == [
        ("data/a", "/d/a"),
        ("models/llama", "/d/llama"),
    ]
    document = json.loads(done.stdout)
    assert (len(document["objects"]), document["failed"]) == (2, [])
    assert mooncake("get", "data/", "models/llama", "/d/", "-q").stdout == "/data/llama\n" * 3
    done = mooncake("get", "data/", "/d/")
    assert done.stderr.count("verified at /data/llama") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data/", "/d"], "several objects cannot all be /d; '/d/' puts each inside"),
        (["data/a", "x/a", "/d/"], "data/a and x/a would both be /d/a"),
        (["[z-a]", "/d/"], "its brackets make no sense"),
    ],
)
def test_several_that_cannot_be(agent: FakeAgent, mooncake: Mooncake, words: list[str], message: str) -> None:
    agent.answers["GET /v1/objects"] = {"objects": [{"name": "data/a"}, {"name": "data/b"}], "next": None}
    done = mooncake("get", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not [path for _, path, _ in agent.requests if path == "/v1/get"]


def test_of_several_each_is_tried(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get"] = [NoLivePeer(name="n", detail="nobody")]
    done = mooncake("get", "a", "b", "/d/", "--json")
    assert done.returncode == 5
    assert [one["name"] for one in json.loads(done.stdout)["failed"]] == ["a", "b"]
    assert mooncake("get", "a", "b", "/d/").stderr.startswith("a: no live peer has")


def test_a_get_tries_again(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get"] = [NoLivePeer(name="n", detail="nobody")]
    done = mooncake("get", "n", "/d", "--retries", "1")
    assert done.returncode == 5
    assert sum(path == "/v1/get" for _, path, _ in agent.requests) == 2
    assert done.stderr.startswith("no live peer has what is missing of 'n': nobody; trying again\nerror: no live peer")
    done = mooncake("get", "n", "/d", "--wait=1s")
    assert done.returncode == 5
    assert sum(path == "/v1/get" for _, path, _ in agent.requests) >= 4


def test_a_get_takes_no_longer_than_it_may(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get"] = [progress(1, 2), HangUntilCancelled()]
    for seconds in (1, 10, 60):  # on a slow day the time is over before the agent has been asked
        done = mooncake("get", "n", "/d", "--timeout", f"{seconds}s", "--json")
        assert (done.returncode, done.stdout) == (5, "")
        assert json.loads(done.stderr)["error"]["message"] == f"not all of 'n' came within {format_seconds(seconds)}"
        if agent.asked("/v1/get"):
            break
    assert agent.cancelled.wait(60)
    agent.answers["POST /v1/get"] = [NoLivePeer(name="n", detail="nobody")]
    done = mooncake("get", "n", "/d", "--wait", "--timeout", "1s")
    assert done.returncode == 5
    assert "hint: the same command resumes; to '-' it begins anew" in done.stderr


def test_quiet_prints_the_destination(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get"] = [{"event": "note", "text": "n"}, get_result()]
    done = mooncake("get", "models/llama", "/data/llama", "-q")
    assert (done.stdout, done.stderr) == ("/data/llama\n", "")


def test_a_destination_that_is_complete_is_not_called_a_transfer(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get"] = [get_result(bytes_pulled=0, bytes_reused=10, peers={}, seconds=0.0)]
    done = mooncake("get", "models/llama", "/data/llama")
    assert done.stderr.startswith("models/llama is complete at /data/llama: nothing had to be pulled")


def test_verbose_says_who_sent_how_much(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get"] = [get_result()]
    done = mooncake("get", "models/llama", "/data/llama", "-v")
    assert done.stderr.splitlines()[:2] == ["   5.0 MiB from alpha", "   3.0 MiB from beta"]


def test_a_dry_run_says_what_would_happen(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get"] = [get_result(dry_run=True, bytes_pulled=0, seeding=False)]
    done = mooncake("get", "models/llama", "/data/llama", "--dry-run")
    assert agent.body_of("POST /v1/get")["dry_run"] is True
    assert done.stderr == ("would pull 8.0 MiB of 10.0 MiB (2.0 MiB is here already) from 2 peers to /data/llama\n")


def test_the_agent_is_asked_for_what_was_said(agent: FakeAgent, mooncake: Mooncake, tmp_path: Path) -> None:
    agent.answers["POST /v1/get"] = [get_result()]
    mooncake("get", "a/b", "x/", "--transport", "tcp", "--peer", "h:1", "--peer", "[::1]:2", "--no-seed", "--force")
    assert agent.body_of("POST /v1/get") == {
        "name": "a/b",
        "dest": str(tmp_path / "cwd" / "x" / "b"),
        "transport": "tcp",
        "peers": ["h:1", "[::1]:2"],
        "seed": False,
        "dry_run": False,
        "force": True,
        "wipe": False,
    }
    mooncake("get", "a/b", "x", "--wipe")
    assert agent.body_of("POST /v1/get")["wipe"] is True


def test_some_tensors_are_asked_for_in_a_call_of_their_own(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get-tensors"] = [get_result(tensors=12, seeding=False)]
    done = mooncake("get", "models/llama", "/data/llama", "--tensors", "model.layers.0.*", "--tensors", "lm_head.*")
    assert agent.body_of("POST /v1/get-tensors")["tensors"] == ["model.layers.0.*", "lm_head.*"]
    assert done.stderr == (
        "got 12 tensors of models/llama: 8.0 MiB by tcp from 2 peers in 2.0 s, 4.0 MiB/s, 2.0 MiB reused\n"
        "verified at /data/llama\n"
    )


@pytest.mark.parametrize(
    ("tensors", "words"), [(1, "1 tensor of models/llama is"), (2, "2 tensors of models/llama are")]
)
def test_tensors_that_were_here(agent: FakeAgent, mooncake: Mooncake, tensors: int, words: str) -> None:
    agent.answers["POST /v1/get-tensors"] = [get_result(tensors=tensors, bytes_pulled=0, peers={}, seeding=False)]
    done = mooncake("get", "models/llama", "/data/llama", "--tensors", "*")
    assert done.stderr == f"{words} complete at /data/llama: nothing had to be pulled\n"


def test_a_dry_run_of_tensors(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get-tensors"] = [get_result(tensors=12, dry_run=True, seeding=False)]
    done = mooncake("get", "models/llama", "/data/llama", "--tensors", "*", "--dry-run")
    assert done.stderr == "would pull 8.0 MiB for 12 tensors from 2 peers, and write 10.0 MiB to /data/llama\n"


@pytest.mark.parametrize(
    ("known", "last"),
    [({"m/a:b"}, "a"), ({"m"}, "a:b"), ({"m", "m/a:b"}, "a"), (set(), "a")],
    ids=["a tag", "a file of an object", "both", "neither"],
)
def test_in_a_directory_a_tag_is_no_part_of_the_name(
    agent: FakeAgent, mooncake: Mooncake, known: set[str], last: str
) -> None:
    """What is a tag the agent knows."""

    def tags(query: str) -> object:
        return {"tags": []} if parse_qs(query)["name"][0] in known else TagNotFound(name="m/a", tag="b")

    agent.answers["GET /v1/tags"] = tags
    agent.answers["POST /v1/get"] = [get_result()]
    mooncake("get", "m/a:b", "/data/")
    assert agent.body_of("POST /v1/get")["dest"] == f"/data/{last}"
    agent.answers["POST /v1/jobs"] = {"id": 1}
    mooncake("get", "m/a:b", "/data/", "--background")
    assert agent.body_of("POST /v1/jobs")["dest"] == f"/data/{last}"
    mooncake("get", "m/a:b", "/data/x")
    assert agent.body_of("POST /v1/get")["dest"] == "/data/x"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a/../b", "x"], "the path in a/../b has the part '..'"),
        (["a", ""], "DEST is empty"),
        (["", "x"], "bad name ''"),
        (["a", "x", "--peer", "10.0.0.1"], "--peer: '10.0.0.1' has no port"),
        (["a", "x", "--peer", "host:99999"], "is not a port"),
        (["a", "x", "--transport", "rdma2"], "--transport: 'rdma2' is none of"),
        (["a"], "NAME or DEST is missing"),
        ([], "NAME or DEST is missing"),
        (["a", "x", "--wait=soon"], "--wait: 'soon' is no time"),
        (["a", "x", "--timeout", "-1s"], "--timeout: '-1s' is no time"),
        (["a", "x", "--retries", "-1"], "Invalid value for '--retries'"),
    ],
)
def test_bad_input_never_reaches_the_agent(
    agent: FakeAgent, mooncake: Mooncake, arguments: list[str], words: str
) -> None:
    done = mooncake("get", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(agent.requests) == 0


@pytest.mark.parametrize(
    ("error", "status"),
    [(DestinationExists(path="/d"), 7), (NoLivePeer(name="a", detail="none left"), 5)],
)
def test_errors_have_their_status(agent: FakeAgent, mooncake: Mooncake, error: Exception, status: int) -> None:
    agent.answers["POST /v1/get"] = [error]
    done = mooncake("get", "a", "/d", "--json")
    assert (done.returncode, done.stdout) == (status, "")
    assert json.loads(done.stderr)["error"]["exit_code"] == status


def test_escapes_from_peers_do_not_reach_the_terminal(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/get"] = [{"event": "note", "text": "peer \x1b[2Jevil\u202e"}, get_result()]
    assert "peer \\x1b[2Jevil\\u202e\n" in mooncake("get", "a", "/d").stderr


@pytest.mark.parametrize(
    ("call", "dest", "how"),
    [
        ("get", "/data/my llama", "resume: mooncake get models/llama '/data/my llama'"),
        ("stream", "-", "begin anew: mooncake get models/llama -"),
    ],
)
def test_ctrl_c_cancels_and_says_how_to_resume(
    agent: FakeAgent, environment: dict[str, str], tmp_path: Path, call: str, dest: str, how: str
) -> None:
    agent.answers[f"POST /v1/{call}"] = [{"event": "note", "text": "pulling now"}, HangUntilCancelled()]
    command = [sys.executable, "-m", "mooncake_cli", "get", "models/llama", dest]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "pulling now\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err == f"interrupted; run the same command again to {how}\n"
    assert agent.cancelled.wait(60)


def test_an_update(agent: FakeAgent, mooncake: Mooncake, tmp_path: Path) -> None:
    agent.answers["POST /v1/get-update"] = [get_result(replaced="9" * 64)]
    done = mooncake("get", "m", tmp_path / "x", "--update")
    assert done.returncode == 0, done.stderr
    assert f"verified at /data/llama, in place of {'9' * 12}; this node serves it now" in done.stderr
    assert agent.body_of("POST /v1/get-update")["update"] is True
    for other in (["--force"], ["--wipe"], ["--range", "0-9"], ["--include", "x"], ["--tensors", "x"]):
        done = mooncake("get", "m", tmp_path / "x", "--update", *other)
        assert done.returncode == 2
        assert f"it takes no {other[0]}" in done.stderr
