"""Which objects are meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mooncake_cli.output import Output
from mooncake_cli.wanted import SHOWN_FAILURES, Outcomes, is_pattern, meant
from p2pstore.errors import DestinationBusy, MooncakeError, NotHeld, ObjectNotFound, PartialResult, UsageError

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


def outcomes(*errors: MooncakeError, done: int = 1) -> Outcomes:
    made = Outcomes()
    made.done += [{"name": f"done-{number}"} for number in range(done)]
    for number, error in enumerate(errors):
        made.fails(f"failed-{number}", error)
    return made


def test_advice_that_fits_all_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    error = ObjectNotFound(name="x")
    with pytest.raises(PartialResult, match="1 of 2 objects could not be done") as caught:
        outcomes(error).end(Output(), [])
    assert caught.value.hint == error.hint
    assert capsys.readouterr().err == f"failed-0: {error}\n"


def test_several_causes_have_each_its_own_advice(capsys: pytest.CaptureFixture[str]) -> None:
    missing, busy = ObjectNotFound(name="x"), DestinationBusy(path="/d")
    with pytest.raises(PartialResult) as caught:
        outcomes(missing, busy).end(Output(home="/h"), [])
    assert caught.value.hint == PartialResult.EACH
    shown = capsys.readouterr().err.splitlines()
    assert shown[1] == f"failed-1: {busy} ({busy.hint})"
    assert "'mooncake --home /h list'" in shown[0]


def test_the_first_is_raised_where_all_failed(capsys: pytest.CaptureFixture[str]) -> None:
    many = [NotHeld(name=str(number)) for number in range(SHOWN_FAILURES + 2)]
    with pytest.raises(NotHeld) as caught:
        outcomes(*many, done=0).end(Output(), [])
    assert caught.value is many[0]
    assert capsys.readouterr().err.endswith("and 2 more; --json has all\n")


def test_json_has_the_advice_that_people_get(capsys: pytest.CaptureFixture[str]) -> None:
    made = outcomes(ObjectNotFound(name="x"))
    with pytest.raises(PartialResult):
        made.end(Output("json", home="/h"), [])
    assert "'mooncake --home /h list'" in capsys.readouterr().out
