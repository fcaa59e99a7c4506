"""Reading in place over the agent's API."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.p2pstore.agent.api import Api
from tests.p2pstore.samples import MIB, content, write_tree

FILES = {"a": content(MIB + 1), "b/c d": b"12345", "e": b""}


@pytest.fixture
async def digest(api: Api, tmp_path: Path) -> str:
    write_tree(tmp_path / "tree", FILES, ("none",))
    *_, made = await api.stream("/v1/register", {"path": str(tmp_path / "tree"), "name": "x/y"})
    return str(made["manifest"])


async def tree(api: Api, path: str, more: str = "") -> dict[str, Any]:
    status, answer = await api.call("GET", f"/v1/tree?path={quote(path)}{more}")
    assert status == 200, answer
    return answer


async def test_what_is_in_an_object(api: Api, digest: str) -> None:
    whole = await tree(api, "x/y", "&list=1")
    assert (whole["object"], whole["name"], whole["manifest"]) == ("x/y", "x/y", digest)
    assert (whole["entry"]["kind"], [each["path"] for each in whole["entries"]]) == (
        "directory",
        ["a", "b", "e", "none"],
    )
    below = await tree(api, "x/y/", "&list=1&recursive=1")
    assert [each["path"] for each in below["entries"]] == ["a", "b", "b/c d", "e", "none"]
    one = await tree(api, f"x/y@sha256:{digest[:12]}/b/c d", "&list=1")
    assert one["object"] == f"x/y@sha256:{digest[:12]}"
    assert (one["entry"]["size"], one["entry"]["number"], one["entries"]) == (5, 1, [])
    assert (await tree(api, "x/y"))["entries"] == []


async def test_ranges(api: Api, digest: str) -> None:
    body = {"name": "x/y", "manifest": digest, "ranges": [[1, 1, 3], [0, MIB, MIB + 1], [2, 0, 0]]}
    async with api.session.post("http://agent/v1/read", json=body) as answer:
        data = await answer.read()
    assert b'{"event":"bytes","length":2}\n23' in data
    assert b'{"event":"bytes","length":1}\n' + FILES["a"][-1:] in data
    assert data.endswith(b'{"event":"result","bytes":3}\n')


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"manifest": 7},
        *({"ranges": value} for value in (None, 7, [7], [[1, 2]], [[1, 2, "3"]], [[1, 2, 3.0]], [[0, 0, 1]] * 20_000)),
    ],
)
async def test_bad_calls(api: Api, digest: str, change: dict[str, Any]) -> None:
    status, answer = await api.call(
        "POST", "/v1/read", json={"name": "x/y", "manifest": digest, "ranges": [], **change}
    )
    assert (status, answer["error"]["exit_code"]) == (400, 2)


async def test_what_is_not_there(api: Api, digest: str) -> None:
    for path, code, kind in (
        ("x/y/none such", 404, "NotInObject"),
        ("x", 404, "ObjectNotFound"),
        ("", 400, "BadName"),
        ("x//y", 400, "BadName"),
    ):
        status, answer = await api.call("GET", f"/v1/tree?path={quote(path)}")
        assert (status, answer["error"]["type"]) == (code, kind)
    *_, error = await api.stream("/v1/read", {"name": "x/y", "manifest": "0" * 64, "ranges": [[0, 0, 1]]})
    assert error["event"] == "error"
