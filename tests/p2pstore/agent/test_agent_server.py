"""The agent's own API: each call answered in its form, each bad one refused with the reason, each left one cancelled."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from p2pstore.errors import MooncakeError, all_errors
from p2pstore.holding.incoming import Incoming
from p2pstore.node import Node
from tests.p2pstore.agent.api import Api
from tests.p2pstore.samples import MIB, content, read_tree, write_tree

FILES = {"a": content(MIB + 1), "b": b""}
WAIT = 60.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tree(tmp_path / "tree", FILES)
    return tmp_path / "tree"


async def test_a_life(api: Api, root: Path, tmp_path: Path) -> None:
    *_, registered = await api.stream("/v1/register", {"path": str(root), "name": "x/y"})
    assert registered["event"] == "result"
    assert (registered["name"], registered["files"], registered["size"]) == ("x/y", 2, MIB + 1)
    status, listing = await api.call("GET", "/v1/objects?prefix=x/")
    assert (status, [o["name"] for o in listing["objects"]], listing["next"]) == (200, ["x/y"], None)
    status, info = await api.call("GET", "/v1/info?name=x/y")
    assert (status, info["manifest"]) == (200, registered["manifest"])
    *_, verified = await api.stream("/v1/verify", {"target": "x/y"})
    assert verified["ok"]
    *_, got = await api.stream("/v1/get", {"name": "x/y", "dest": str(tmp_path / "dest")})
    assert (got["event"], got["bytes_reused"]) == ("result", MIB + 1)
    assert read_tree(tmp_path / "dest") == FILES
    status, answer = await api.call("POST", "/v1/unregister", json={"name": "x/y"})
    assert (status, len(answer["withdrawn"])) == (200, 2)
    status, error = await api.call("GET", "/v1/info?name=x/y")
    assert (status, error["error"]["type"]) == (404, "ObjectNotFound")


async def test_many_are_registered_in_one_call(api: Api, root: Path) -> None:
    items = [[str(root / name), f"each/{name}"] for name in sorted(name.partition("/")[0] for name in FILES)]
    *_, made = await api.stream("/v1/register-many", {"items": [*items, ["/none", "none"]]})
    assert [one["name"] for one in made["objects"]] == [name for _, name in items]
    assert [one["error"]["type"] for one in made["failed"]] == ["PathNotFound"]
    _, listing = await api.call("GET", "/v1/objects?limit=1")
    assert (len(listing["objects"]), listing["next"]) == (1, items[0][1])


async def test_status_and_stop(api: Api) -> None:
    status, answer = await api.call("GET", "/v1/status")
    assert (status, answer["node"], answer["pid"], answer["home"]) == (200, "n", os.getpid(), "/h")
    assert not api.stopped.is_set()
    assert await api.call("POST", "/v1/stop") == (200, {"pid": os.getpid()})
    assert api.stopped.is_set()


CALLS = {
    "/v1/register": {"path": "/tmp", "name": "n"},
    "/v1/register-many": {"items": [["/tmp", "n"]]},
    "/v1/get": {"name": "n", "dest": "/tmp/x"},
    "/v1/verify": {"target": "n"},
    "/v1/unregister": {"name": "n"},
}
BAD: list[tuple[str, dict[str, Any]]] = [
    *((path, {}) for path in CALLS),
    *((path, {**body, key: value}) for path, body in CALLS.items() for key in body for value in ("", 7, None, ["x"])),
    ("/v1/register", {"path": "relative"}),
    ("/v1/register", {"path": "/nul\0"}),
    ("/v1/register", {"hash": "md5"}),
    ("/v1/register", {"hash": ["xxh3_128"]}),
    ("/v1/register", {"hash": {"a": 1}}),
    ("/v1/register", {"chunk_size": 0}),
    ("/v1/register", {"chunk_size": -1}),
    ("/v1/register", {"chunk_size": 3 * MIB}),
    ("/v1/register", {"chunk_size": "1MiB"}),
    ("/v1/register", {"chunk_size": True}),
    ("/v1/register", {"chunk_size": float(MIB)}),
    *(
        ("/v1/register-many", {"items": items})
        for items in (7, ["/tmp"], [["/tmp"]], [["/tmp", "n", 1]], [["relative", "n"]], [["/tmp", 7]], [["/tmp", ""]])
    ),
    ("/v1/register-many", {"items": [], "hash": "md5"}),
    ("/v1/get", {"dest": "relative"}),
    ("/v1/get", {"transport": "carrier pigeon"}),
    ("/v1/get", {"transport": ["tcp"]}),
    ("/v1/get", {"peers": "127.0.0.1:1"}),
    ("/v1/get", {"peers": [7]}),
]


@pytest.mark.parametrize(("path", "change"), BAD, ids=range(len(BAD)))
async def test_bad_calls(api: Api, path: str, change: dict[str, Any]) -> None:
    status, answer = await api.call("POST", path, json={**CALLS[path], **change} if change else {})
    assert (status, answer["error"]["exit_code"]) == (400, 2)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'"text"'], ids=range(7))
@pytest.mark.parametrize("charset", ["utf-8", "none-such"])
async def test_bodies_that_are_no_object(api: Api, data: bytes, charset: str) -> None:
    headers = {"Content-Type": f"application/json; charset={charset}"}
    status, answer = await api.call("POST", "/v1/get", data=data, headers=headers)
    assert (status, answer["error"]["type"]) == (400, "UsageError")


async def test_a_body_that_is_too_large(api: Api) -> None:
    async with api.session.post("http://agent/v1/get", data=io.BytesIO(b"x" * (2 << 20))) as answer:
        assert answer.status == 413


@pytest.mark.parametrize("query", ["limit=x", "limit=1.5"])
async def test_bad_queries(api: Api, query: str) -> None:
    status, answer = await api.call("GET", f"/v1/objects?{query}")
    assert (status, answer["error"]["type"]) == (400, "UsageError")
    assert (await api.call("GET", "/v1/info?name=../x"))[0] == 400
    assert (await api.call("GET", "/v1/info"))[0] == 400


async def test_a_long_call_ends_with_its_error(api: Api, tmp_path: Path) -> None:
    *_, last = await api.stream("/v1/register", {"path": str(tmp_path / "none"), "name": "n"})
    assert last["event"] == "error"
    assert (last["error"]["type"], last["error"]["exit_code"]) == ("PathNotFound", 3)


async def test_a_defect_of_ours_is_an_error_too(api: Api, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(Node, "register", broken)
    monkeypatch.setattr(Node, "unregister", broken)
    *_, last = await api.stream("/v1/register", {"path": str(root), "name": "n"})
    assert (last["event"], last["error"]["exit_code"]) == ("error", 1)
    status, answer = await api.call("POST", "/v1/unregister", json={"name": "n"})
    assert (status, answer["error"]["exit_code"]) == (500, 1)
    assert "oops" in answer["error"]["message"]


async def test_a_client_that_leaves_cancels_its_call(api: Api, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def endless(*_: object, **__: object) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(Node, "register", endless)
    call = asyncio.ensure_future(api.stream("/v1/register", {"path": str(root), "name": "n"}))
    await asyncio.wait_for(began.wait(), WAIT)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await asyncio.wait_for(ended.wait(), WAIT)


async def test_a_client_of_an_agent_that_ends_is_told_so(api: Api, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was told that the agent does not answer, and to stop it."""
    begun = asyncio.Event()

    async def waits(*_: Any, **__: Any) -> dict[str, Any]:
        begun.set()
        await asyncio.Event().wait()
        return {}

    monkeypatch.setattr(api.node, "register", waits)
    call = asyncio.create_task(api.stream("/v1/register", {"path": str(root), "name": "n"}))
    await asyncio.wait_for(begun.wait(), WAIT)
    await api.server.close()
    *_, last = await asyncio.wait_for(call, WAIT)
    assert last["event"] == "error"
    assert (last["error"]["type"], last["error"]["fields"]) == ("Interrupted", {"detail": "the agent is ending"})


async def test_a_quiet_call_shows_that_it_lives(api: Api, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from p2pstore.agent import long_calls as module

    monkeypatch.setattr(module, "QUIET_SECONDS", 0.01)
    go_on = asyncio.Event()

    async def slow(*_: object, **__: object) -> dict[str, Any]:
        await go_on.wait()
        return {"fine": True}

    monkeypatch.setattr(Node, "register", slow)
    async with api.session.post("http://agent/v1/register", json={"path": str(root), "name": "n"}) as answer:
        for _ in range(3):
            assert json.loads(await asyncio.wait_for(answer.content.readline(), WAIT))["event"] == "progress"
        go_on.set()
        lines = [json.loads(line) async for line in answer.content]
        assert lines[-1] == {"event": "result", "fine": True}


async def test_a_call_that_stands_still_says_so(api: Api, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs under a register: whether it reports the same progress again and again, or nothing."""
    from p2pstore.agent import long_calls as module

    monkeypatch.setattr(module, "QUIET_SECONDS", 0.01)
    monkeypatch.setattr(module, "FIRST_NOTE_SECONDS", 0.03)
    go_on = asyncio.Event()

    async def hangs(*_: object, progress: Any = None, **__: object) -> dict[str, Any]:
        await go_on.wait()
        return {"fine": True}

    monkeypatch.setattr(Node, "register", hangs)
    notes = 0
    async with api.session.post("http://agent/v1/register", json={"path": str(root), "name": "n"}) as answer:
        while notes < 2:
            event = json.loads(await asyncio.wait_for(answer.content.readline(), WAIT))
            notes += event["event"] == "note" and "nothing has moved" in event["text"]
        go_on.set()
        lines = [json.loads(line) async for line in answer.content]
        assert lines[-1] == {"event": "result", "fine": True}


@pytest.mark.parametrize("cls", [c for c in all_errors() if c.exit_code != 1], ids=lambda c: c.__name__)
async def test_every_error_crosses(api: Api, monkeypatch: pytest.MonkeyPatch, cls: type[MooncakeError]) -> None:
    error = cls(**dict.fromkeys(cls.field_names(), 7))

    async def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Node, "unregister", fails)
    status, answer = await api.call("POST", "/v1/unregister", json={"name": "n"})
    assert status >= 400
    assert answer["error"]["type"] == cls.__name__
    assert answer["error"]["message"] == str(error)


async def test_whoever_registers_hears_that_others_cannot_come(api: Api, tmp_path: Path) -> None:
    write_tree(tmp_path / "x", FILES)
    api.node.parts = dataclasses.replace(api.node.parts, doubts=("nobody comes here",))
    note = {"event": "note", "text": "warning: nobody comes here"}
    assert note in await api.stream("/v1/register", {"path": str(tmp_path / "x"), "name": "x"})
    assert note in await api.stream("/v1/register-many", {"items": [[str(tmp_path / "x" / "a"), "y"]]})


async def test_a_stream_whose_client_leaves_as_it_begins_leaves_nothing(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_be, made = threading.Event(), threading.Event(), threading.Event()

    def incoming(*_: object) -> Incoming:
        begun.set()
        assert may_be.wait(WAIT)
        coming = Incoming(tmp_path / "kept", "n", "xxh3_128")
        made.set()
        return coming

    monkeypatch.setattr(api.node, "incoming", incoming)
    call = asyncio.ensure_future(api.session.post("http://agent/v1/register-stream?name=n", data=b"x"))
    assert await asyncio.to_thread(begun.wait, WAIT)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await asyncio.sleep(0.1)  # the agent hears of it first
    may_be.set()
    assert await asyncio.to_thread(made.wait, WAIT)
    deadline = time.monotonic() + WAIT
    while list((tmp_path / "kept").iterdir()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("call", ["register", "register-many", "verify", "get"])
async def test_a_call_from_another_mount_namespace_is_refused(api: Api, tmp_path: Path, call: str) -> None:
    write_tree(tmp_path / "x", FILES)
    path = str(tmp_path / "x")
    seen = {"view": "elsewhere", "places": {str(tmp_path): [1, 2, 3, 4, 5]}}
    body = {"path": path, "name": "x", "items": [[path, "x"]], "target": path, "dest": path, "sight": seen}
    (event,) = await api.stream(f"/v1/{call}", body)
    assert event["error"]["type"] == "OtherView"
    assert event["error"]["fields"]["path"] == str(tmp_path)
