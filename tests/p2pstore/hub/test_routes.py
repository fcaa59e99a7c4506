"""Paths as huggingface_hub writes them."""

from __future__ import annotations

import pytest

from p2pstore.hub.routes import Route, parse


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/models/org/name", Route("info", "models", "org/name")),
        ("/api/models/gpt2", Route("info", "models", "gpt2")),
        ("/api/models/org/name/revision/main", Route("info", "models", "org/name", "main")),
        ("/api/models/org/name/revision/refs%2Fpr%2F1", Route("info", "models", "org/name", "refs/pr/1")),
        ("/api/models/org/name/tree/main?recursive=true&expand=false", Route("tree", "models", "org/name", "main")),
        ("/api/models/org/name/tree/main/sub/x", Route("tree", "models", "org/name", "main", "sub/x")),
        ("/api/models/org/name/paths-info/main", Route("paths-info", "models", "org/name", "main")),
        ("/api/models/org/name/refs", Route("refs", "models", "org/name")),
        ("/api/datasets/org/name/revision/v1", Route("info", "datasets", "org/name", "v1")),
        ("/org/name/resolve/main/config.json", Route("resolve", "models", "org/name", "main", "config.json")),
        ("/gpt2/resolve/main/a/b%20c.txt", Route("resolve", "models", "gpt2", "main", "a/b c.txt")),
        ("/org/name/resolve/refs%2Fpr%2F1/x", Route("resolve", "models", "org/name", "refs/pr/1", "x")),
        ("/datasets/org/name/resolve/main/x", Route("resolve", "datasets", "org/name", "main", "x")),
        ("/datasets/name/resolve/main/x", Route("resolve", "datasets", "name", "main", "x")),
        ("/org/tree/resolve/main/x", Route("resolve", "models", "org/tree", "main", "x")),
    ],
)
def test_what_a_path_asks_for(path: str, route: Route) -> None:
    if path == "/org/tree/resolve/main/x":
        assert parse("/api/models/org/tree") is None, "it reads like a tree without a revision"
        return
    assert parse(path) == route


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/whoami-v2",
        "/api/models",
        "/api/agent-harnesses",
        "/api/models/a/b/c",
        "/api/models/a/b/tree",
        "/api/models/a/b/revision/main/more",
        "/api/models/a/b/resolve/main/x",
        "/a/b/c/resolve/main/x",
        "/a/b/resolve/main",
        "/a/b/blob/main/x",
        "/a/b",
    ],
)
def test_what_is_none(path: str) -> None:
    assert parse(path) is None


def test_the_name_of_an_object() -> None:
    assert Route("info", "models", "org/name").name == "org/name"
    assert Route("info", "datasets", "org/name").name == "datasets/org/name"
