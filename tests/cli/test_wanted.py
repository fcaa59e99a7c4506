"""Which objects are meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mooncake_cli.wanted import is_pattern, meant
from p2pstore.errors import ObjectNotFound, UsageError

NAMES = ("a", "data/x", "data/y.tar", "data/y/z", "models/llama", "models/llama-2")


class Listed:
    def all_objects(self, prefix: str = "") -> Iterator[dict[str, Any]]:
        return ({"name": name} for name in NAMES if name.startswith(prefix))


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["zzz", "a"], ["zzz", "a"]),
        (["data/"], ["data/x", "data/y.tar", "data/y/z"]),
        (["data/*"], ["data/x", "data/y.tar"]),
        (["data/**"], ["data/x", "data/y.tar", "data/y/z"]),
        (["*/"], ["data/x", "data/y.tar", "data/y/z", "models/llama", "models/llama-2"]),
        (["models/llama*", "models/"], ["models/llama", "models/llama-2"]),
        (["models/llama/"], ["models/llama"]),
        (["*.tar"], None),
        (["**/*.tar"], ["data/y.tar"]),
        (["data/[xy]"], ["data/x"]),
        (["?"], ["a"]),
    ],
)
def test_names(texts: list[str], names: list[str] | None) -> None:
    if names is None:
        with pytest.raises(ObjectNotFound):
            meant(Listed(), texts)
    else:
        assert meant(Listed(), texts) == names


def test_what_is_a_pattern() -> None:
    assert [text for text in ("a", "a/", "a*", "a?b", "[ab]", "a-b.c") if is_pattern(text)] == [
        "a/",
        "a*",
        "a?b",
        "[ab]",
    ]
    with pytest.raises(UsageError, match="brackets"):
        meant(Listed(), ["[z-a]"])
