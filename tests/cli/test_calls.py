"""A long call is followed to its result; leaving early ends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mooncake_cli.calls import follow
from mooncake_cli.output import Output
from p2pstore.errors import MooncakeError


class Recorded:
    """An output that remembers what it was told."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def progress(self, verb: str, unit: str) -> Recorded:
        self.seen.append((verb, unit))
        return self

    def __enter__(self) -> Recorded:  # noqa: PYI034 - it is no base class
        return self

    def __exit__(self, *_: object) -> None:
        self.seen.append("closed")

    def begin(self, verb: str, unit: str) -> None:
        self.seen.append((verb, unit))

    def update(self, done: int, total: int, peers: int | None = None) -> None:
        self.seen.append((done, total, peers))

    def message(self, text: str) -> None:
        self.seen.append(text)


def test_progress_and_notes_come_in_order_and_then_the_result() -> None:
    events = [
        {"event": "progress", "done": 1, "total": 2},
        {"event": "note", "text": "a\x1bb"},
        {"event": "of a later release"},
        {"event": "result", "name": "n"},
    ]
    output = Recorded()
    assert follow(output, iter(events), "pulling") == {"name": "n"}  # type: ignore[arg-type]
    assert output.seen == [("pulling", "B"), ("pulling", "B"), (1, 2, None), "a\\x1bb", "closed"]


def test_a_step_has_its_own_name_and_unit() -> None:
    events = [
        {"event": "progress", "done": 0, "total": 0, "peers": 0},
        {"event": "progress", "step": "listing\x1b", "unit": "files", "done": 5, "total": 0},
        {"event": "progress", "step": "syncing", "unit": "", "done": 0, "total": 0},
        {"event": "progress", "done": 1, "total": 2, "peers": 3},
        {"event": "result"},
    ]
    output = Recorded()
    follow(output, iter(events), "pulling")  # type: ignore[arg-type]
    assert output.seen[1:-1] == [
        ("listing\\x1b", "files"),
        (5, 0, None),
        ("syncing", ""),
        (0, 0, None),
        ("pulling", "B"),
        (1, 2, 3),
    ]


def test_a_call_without_a_result_is_a_defect_and_no_success() -> None:
    with pytest.raises(MooncakeError, match="without a result"):
        follow(Recorded(), iter([{"event": "progress", "done": 1, "total": 2}]), "pulling")  # type: ignore[arg-type]


def test_leaving_early_closes_the_call() -> None:
    ended: list[bool] = []

    def events() -> Iterator[dict[str, Any]]:
        try:
            yield {"event": "note", "text": "x"}
            yield {"event": "result"}
        finally:
            ended.append(True)

    class Interrupting(Recorded):
        def message(self, text: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(Interrupting(), events(), "pulling")  # type: ignore[arg-type]
    assert ended == [True]


def test_it_takes_the_real_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert follow(Output("quiet"), iter([{"event": "result", "size": 1}]), "pulling") == {"size": 1}
    assert capsys.readouterr() == ("", "")
