from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import p2pstore.agent.client
import p2pstore.agent.connection
import p2pstore.agent.socket_calls
from engine.net.host_id import view_id
from p2pstore.agent.client import AgentClient
from p2pstore.agent.home import Home
from p2pstore.agent.sight import look
from p2pstore.errors import (
    AgentUnreachable,
    ObjectNotFound,
    OtherView,
)
from tests.cli.fake_agent import FakeAgent, get_result, progress
from tests.p2pstore.users import NOBODY, run_unprivileged

HEAVY = ("grpc", "aiohttp", "xxhash", "asyncio", "numpy", "rich", "tqdm", "typer", "p2pstore.node", "engine.engine")


def test_it_imports_nothing_heavy() -> None:
    code = f"import sys, p2pstore.agent.client, p2pstore.settings.settings; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_plain_calls_are_answered(agent: FakeAgent, home: Home) -> None:
    assert AgentClient(home).status()["node"] == "alpha"


def test_a_home_that_is_another_users_is_said_to_be() -> None:
    """As one that MOONCAKE_HOME names for a user who was given a copy of somebody's settings."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    code = """
try:
    AgentClient(Home.resolve(Path(sys.argv[1]) / "home", {})).status()
except MooncakeError as error:
    print(type(error).__name__, error.exit_code, error, error.hint, sep="\\n")
"""
    with tempfile.TemporaryDirectory() as place:  # closed to others
        kind, status, said, hint = run_unprivileged(code, place).splitlines()
        assert (kind, status) == ("HomeOfAnother", "8")
        assert said == f"the agent's home is another user's: {place} belongs to user root"
        assert "MOONCAKE_HOME" in hint
        assert "permissions" not in hint
        os.chown(place, NOBODY, NOBODY)
        os.chmod(place, 0)
        kind, _, said, hint = run_unprivileged(code, place).splitlines()
        assert (kind, "permissions" in hint) == ("StorageError", True), said
        os.chmod(place, 0o700)


def test_a_long_socket_path_is_reached(tmp_path: Path) -> None:
    home = Home.resolve(tmp_path / ("d" * 120), {})
    agent = FakeAgent(home)
    try:
        assert AgentClient(home).status()["node"] == "alpha"
    finally:
        agent.close()


def test_errors_come_across(agent: FakeAgent, home: Home) -> None:
    agent.answers["GET /v1/info"] = ObjectNotFound(name="x")
    with pytest.raises(ObjectNotFound, match="no object is named 'x'"):
        AgentClient(home).info("x")


def test_names_are_quoted_in_the_query(agent: FakeAgent, home: Home) -> None:
    agent.answers["GET /v1/info"] = {}
    AgentClient(home).info("a&b=c d/é")
    assert agent.body_of("GET /v1/info") == "name=a%26b%3Dc+d%2F%C3%A9"


def test_events_come_as_they_are_sent(agent: FakeAgent, home: Home) -> None:
    agent.answers["POST /v1/get"] = [progress(0, 10), progress(10, 10), get_result()]
    events = list(AgentClient(home).get("n", "/d", peers=["h:1"], seed=False))
    assert [event["event"] for event in events] == ["progress", "progress", "result"]
    assert agent.body_of("POST /v1/get") == {
        "name": "n",
        "dest": "/d",
        "transport": "auto",
        "peers": ["h:1"],
        "seed": False,
        "dry_run": False,
        "force": False,
        "wipe": False,
    }


def test_a_call_says_what_it_sees_at_the_paths_that_it_names(agent: FakeAgent, home: Home, tmp_path: Path) -> None:
    """For an agent in another mount namespace: see ``p2pstore.agent.sight``."""
    client = AgentClient(home)
    file = str(tmp_path / "f")
    Path(file).write_text("x")
    agent.answers |= {f"POST /v1/{call}": [get_result()] for call in ("get", "register", "register-many", "verify")}
    how: dict[str, Any] = {"chunk_size": None, "hash_name": "blake3", "force": False}
    list(client.get("n", str(tmp_path / "d")))
    list(client.register(file, "n", **how))
    list(client.verify(file))
    agent.answers["POST /v1/register-many"] = [
        {"event": "result", "objects": [], "failed": [], "size": 0, "seconds": 0.0}
    ]
    list(client.register_many([(file, "n")], **how))
    assert agent.sight_of("POST /v1/get")["places"] == {str(tmp_path): look(str(tmp_path))}
    assert agent.sight_of("POST /v1/register-many")["places"] == {str(tmp_path): look(str(tmp_path))}
    assert agent.sight_of("POST /v1/register")["places"] == {file: look(file)}
    assert agent.sight_of("POST /v1/verify")["places"] == {file: look(file)}
    assert agent.sight_of("POST /v1/get")["view"] == view_id()


def test_a_result_that_is_not_here_is_no_success(agent: FakeAgent, home: Home, tmp_path: Path) -> None:
    agent.answers["POST /v1/get"] = [
        {**get_result(), "dest": str(tmp_path / "d"), "view": "x", "seen": [1, 2, 3, 4, 5]}
    ]
    with pytest.raises(OtherView, match=r"does not see at .*/d what this command sees"):
        list(AgentClient(home).get("n", str(tmp_path / "d")))


def test_one_that_hangs_is_found_out_early_though_other_calls_have_longer(
    agent: FakeAgent, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(p2pstore.agent.client, "STATUS_TIMEOUT", 0.2)
    agent.answers["GET /v1/status"] = lambda _: threading_wait(agent)
    with pytest.raises(AgentUnreachable, match=r"nothing for 0\.2 s"):
        AgentClient(home).answers()
    agent.cancelled.set()


def test_pages_are_followed(agent: FakeAgent, home: Home) -> None:
    pages = {"": (["a", "b"], "b"), "b": (["c"], None)}

    def answer(query: str) -> dict[str, object]:
        names, following = pages[query.rpartition("after=")[2]]
        return {"objects": [{"name": name} for name in names], "next": following}

    agent.answers["GET /v1/objects"] = answer
    assert [item["name"] for item in AgentClient(home).all_objects()] == ["a", "b", "c"]


def test_pages_that_do_not_advance_end(agent: FakeAgent, home: Home) -> None:
    agent.answers["GET /v1/objects"] = {"objects": [{"name": "a"}], "next": "a"}
    assert len(list(AgentClient(home).all_objects())) == 2


def test_thousands_of_paths_take_several_calls(agent: FakeAgent, home: Home) -> None:
    agent.answers["POST /v1/register-many"] = [
        progress(7, 9),
        {"event": "result", "objects": [{}], "failed": [{}], "size": 3, "seconds": 0.5},
    ]
    items = [("/" + "d" * 400 + f"/{number}", str(number)) for number in range(1500)]
    events = list(AgentClient(home).register_many(items, chunk_size=None, hash_name="xxh3_128", force=False))
    bodies = [body for method, path, body in agent.requests if path == "/v1/register-many"]
    assert [tuple(item) for body in bodies for item in body["items"]] == items
    assert len(bodies) == 2
    assert events[-1] == {"event": "result", "objects": [{}] * 2, "failed": [{}] * 2, "size": 6, "seconds": 1.0}
    assert [(event["done"], event["total"]) for event in events[:-1]] == [
        (7, 1500),
        (7 + len(bodies[0]["items"]), 1500),
    ]


def test_long_paths_keep_a_call_small(agent: FakeAgent, home: Home) -> None:
    agent.answers["POST /v1/register-many"] = [
        {"event": "result", "objects": [], "failed": [], "size": 0, "seconds": 0}
    ]
    items = [("/" + "d/" * 2000 + str(number), str(number)) for number in range(300)]
    list(AgentClient(home).register_many(items, chunk_size=None, hash_name="xxh3_128", force=False))
    bodies = [body for method, path, body in agent.requests if path == "/v1/register-many"]
    assert sum(len(body["items"]) for body in bodies) == 300
    assert len(bodies) > 2


def threading_wait(agent: FakeAgent) -> dict[str, object]:
    agent.cancelled.wait(30)
    return {}
