"""Jobs over the agent's API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.p2pstore.agent.api import Api
from tests.p2pstore.samples import MIB, content, read_tree, write_tree

FILES = {"a": content(MIB + 1), "b": b""}


async def test_a_life(api: Api, tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", FILES)
    await api.stream("/v1/register", {"path": str(tmp_path / "tree"), "name": "x/y"})
    body = {"name": "x/y", "dest": str(tmp_path / "dest"), "transport": "tcp", "wait": 5, "retries": 1, "timeout": 60.5}
    status, begun = await api.call("POST", "/v1/jobs", json=body)
    assert (status, begun["id"], begun["state"], begun["exit_code"]) == (200, 1, "running", None)
    *_, result = await api.stream("/v1/jobs/1/wait", {})
    assert (result["event"], result["dest"]) == ("result", body["dest"])
    assert read_tree(tmp_path / "dest") == FILES
    status, job = await api.call("GET", "/v1/jobs/1")
    assert (status, job["state"], job["exit_code"]) == (200, "done", 0)
    assert {"event": "result", **job["result"]} == result
    assert job["asked"]["wait"] == 5
    assert await api.call("GET", "/v1/jobs") == (200, {"jobs": [job]})
    assert await api.call("POST", "/v1/jobs/1/cancel") == (200, job)


async def test_what_nothing_is_called_is_no_job(api: Api, tmp_path: Path) -> None:
    body = {"name": "not/there", "dest": str(tmp_path / "dest")}
    status, refused = await api.call("POST", "/v1/jobs", json=body)
    assert (status, refused["error"]["type"]) == (404, "ObjectNotFound")
    assert await api.call("GET", "/v1/jobs") == (200, {"jobs": []})


async def test_one_that_waits_for_ever_is_cancelled(api: Api, tmp_path: Path) -> None:
    body = {"name": "not/yet", "dest": str(tmp_path / "dest"), "wait": "for-ever"}
    _, begun = await api.call("POST", "/v1/jobs", json=body)
    status, refused = await api.call("POST", "/v1/jobs", json=body)
    assert (status, refused["error"]["type"]) == (409, "DestinationBusy")
    async with api.session.post(f"http://agent/v1/jobs/{begun['id']}/wait", json={}) as answer:
        while b"trying again" not in await answer.content.readline():
            pass
    status, job = await api.call("POST", f"/v1/jobs/{begun['id']}/cancel")
    assert (status, job["state"], job["exit_code"]) == (200, "cancelled", 130)
    *_, error = await api.stream(f"/v1/jobs/{begun['id']}/wait", {})
    assert error["error"]["type"] == "JobCancelled"


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"dest": "relative"},
        {"dry_run": True},
        *({"wait": value} for value in (-1, "long", True, [1], 1e400)),
        *({"retries": value} for value in (-1, 1.5, "2", True)),
        *({"timeout": value} for value in (0, -1, "2", True)),
        {"range": "5-3"},
    ],
)
async def test_bad_calls(api: Api, tmp_path: Path, change: dict[str, Any]) -> None:
    body = {"name": "n", "dest": str(tmp_path / "d"), **change}
    status, answer = await api.call("POST", "/v1/jobs", json=body)
    assert (status, answer["error"]["exit_code"]) == (400, 2)
    assert await api.call("GET", "/v1/jobs") == (200, {"jobs": []})


async def test_numbers_of_no_job(api: Api) -> None:
    for number, code in (("7", 404), ("x", 400), ("-1", 400), ("²", 400)):
        for method, path in (("GET", ""), ("POST", "/wait"), ("POST", "/cancel")):
            status, answer = await api.call(method, f"/v1/jobs/{number}{path}")
            assert (status, answer["error"]["type"]) == (code, "JobNotFound" if code == 404 else "UsageError")
