"""The part of the agent's API that is about what lies on the node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.p2pstore.agent.api import Api
from tests.p2pstore.samples import write_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tree(tmp_path / "tree", {"a": b"aaa", "b": b""})
    return tmp_path / "tree"


async def test_listed_pinned_and_pruned(api: Api, root: Path) -> None:
    assert (await api.call("GET", "/v1/cache"))[1] == {"copies": [], "quota": None}
    await api.stream("/v1/register", {"path": str(root), "name": "n"})
    status, answer = await api.call("POST", "/v1/cache-pin", json={"names": ["n"], "pinned": True})
    assert (status, [copy["pinned"] for copy in answer["copies"]]) == (200, [True])
    (copy,) = (await api.call("GET", "/v1/cache"))[1]["copies"]
    assert (copy["name"], copy["role"], copy["place"], copy["pinned"]) == ("n", "gold", str(root), True)
    *_, done = await api.stream("/v1/cache-prune", {})
    assert done == {"event": "result", "deleted": [], "kept": [], "bytes": 0, "dry_run": False}
    only = [[copy["name"], copy["place"], copy["manifest"]]]
    *_, done = await api.stream("/v1/cache-prune", {"only": only, "keep": ["x/", "*.y"], "last_copies": True})
    assert [kept["error"]["type"] for kept in done["kept"]] == ["CopyStays"]
    assert os.listdir(root)


async def test_unregister_and_delete(api: Api, root: Path) -> None:
    await api.stream("/v1/register", {"path": str(root), "name": "n"})
    status, answer = await api.call("POST", "/v1/unregister-delete", json={"name": "n", "last_copies": True})
    assert (status, answer["error"]["type"]) == (409, "CopyStays")
    status, answer = await api.call("POST", "/v1/cache-pin", json={"names": ["m"], "pinned": True})
    assert (status, answer["error"]["type"]) == (404, "NotHeld")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/cache-pin", {"names": ["n"]}),
        ("/v1/cache-pin", {"names": "n", "pinned": True}),
        ("/v1/cache-prune", {"older_than": "a day"}),
        ("/v1/cache-prune", {"larger_than": -1}),
        ("/v1/cache-prune", {"keep": ["[z-a]"]}),
        ("/v1/cache-prune", {"only": [["n", "/p"]]}),
        ("/v1/cache-prune", {"only": [["n", "/p", 7]]}),
        ("/v1/cache-prune", {"only": "n"}),
        ("/v1/unregister-delete", {}),
    ],
)
async def test_slips(api: Api, path: str, body: dict[str, Any]) -> None:
    status, answer = await api.call("POST", path, json=body)
    assert (status, answer["error"]["type"]) == (400, "UsageError")
