"""A wrong argument is told as one, wherever it is passed: never an error from deep inside, never taken in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import arguments
from engine.engine import Opcode, TransferEngine, TransferRequest
from engine.errors import MooncakeError, UsageError

WRONG: list[Any] = [
    None, 5, -1, 1.5, True, b"x", "", "a\0b", "\ud800", [], {}, object(), (1, 2), "x" * 5000, float("nan"), 1 << 70,
]  # fmt: skip
"""Of each some are right for some arguments; none may raise anything but an error of ours."""

ENGINE = ("local_hostname", "metadata_server", "protocol", "device_name", "bind", "settings", "nics")

Call = Callable[[Any, TransferEngine, Any, Any, int], object]

CALLS: dict[str, Call] = {
    "register_memory": lambda x, e, s, m, a: e.register_memory(x),
    "register_memory's name": lambda x, e, s, m, a: e.register_memory(bytearray(8), name=x),
    "register_memory_batch": lambda x, e, s, m, a: e.register_memory_batch(x),
    "its names": lambda x, e, s, m, a: e.register_memory_batch([bytearray(8)], names=x),
    "one of its names": lambda x, e, s, m, a: e.register_memory_batch([bytearray(8)], names=[x]),
    "unregister_memory": lambda x, e, s, m, a: e.unregister_memory(x),
    "its timeout": lambda x, e, s, m, a: e.unregister_memory(e.register_memory(bytearray(8)), timeout=x),
    "unregister_memory_batch": lambda x, e, s, m, a: e.unregister_memory_batch(x),
    "open_segment": lambda x, e, s, m, a: e.open_segment(x),
    "close_segment": lambda x, e, s, m, a: e.close_segment(x),
    "submit_transfer": lambda x, e, s, m, a: e.submit_transfer(x),
    "a request": lambda x, e, s, m, a: e.submit_transfer([x]),
    "a request's opcode": lambda x, e, s, m, a: e.submit_transfer([TransferRequest(x, m, s, a)]),
    "a request's memory": lambda x, e, s, m, a: e.submit_transfer([TransferRequest(Opcode.READ, x, s, a)]),
    "a request's segment": lambda x, e, s, m, a: e.submit_transfer([TransferRequest(Opcode.READ, m, x, a)]),
    "read's memory": lambda x, e, s, m, a: e.read(x, s, a),
    "read's segment": lambda x, e, s, m, a: e.read(m, x, a),
    "read's address": lambda x, e, s, m, a: e.read(m, s, x, length=1),
    "read's length": lambda x, e, s, m, a: e.read(m, s, a, x),
    "read's offset": lambda x, e, s, m, a: e.read(m, s, a, 1, offset=x),
    "read's offset alone": lambda x, e, s, m, a: e.read(m, s, a, offset=x),
    "read's timeout": lambda x, e, s, m, a: e.read(m, s, a, 1, timeout=x),
    "write's address": lambda x, e, s, m, a: e.write(m, s, x, length=1),
    "notify's segment": lambda x, e, s, m, a: e.notify(x, "a", "b"),
    "notify's name": lambda x, e, s, m, a: e.notify(s, x, "b"),
    "notify's text": lambda x, e, s, m, a: e.notify(s, "a", x),
    "probe": lambda x, e, s, m, a: e.probe(x),
    "a batch's timeout": lambda x, e, s, m, a: e.submit_transfer([]).wait(x),
    "the number of a request": lambda x, e, s, m, a: e.submit_transfer([]).status(x),
}


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[TransferEngine, TransferEngine]]:
    with TransferEngine() as ours, TransferEngine() as theirs:
        theirs.register_memory(bytearray(100), writable=True)
        yield ours, theirs


@pytest.mark.parametrize("name", CALLS)
def test_an_engines_calls_tell_it(name: str, engines: tuple[TransferEngine, TransferEngine]) -> None:
    ours, theirs = engines
    memory = ours.register_memory(bytearray(100), writable=True)
    refused = 0
    for wrong in WRONG:
        segment = ours.open_segment(theirs.segment_name)
        try:
            CALLS[name](wrong, ours, segment, memory, segment.buffers[0].address)
        except MooncakeError as error:
            refused += isinstance(error, UsageError)
    assert refused


@pytest.mark.parametrize("name", ENGINE)
def test_an_engines_options_tell_it(name: str) -> None:
    refused = 0
    for wrong in WRONG:
        try:
            TransferEngine(**{name: wrong}).close()
        except MooncakeError as error:
            refused += isinstance(error, UsageError)
    assert refused


def test_the_sentence_says_what_must_be_what() -> None:
    with pytest.raises(UsageError, match=r"^the name must be text, and is 5$"):
        arguments.text(5, "the name")
    with pytest.raises(UsageError, match=r"^the name must be text, and is b'x{58}\.\.\.$"):
        arguments.text(b"x" * 100, "the name")


def test_several_texts_are_not_one() -> None:
    assert arguments.texts(["a", "b"], "the peers") == ("a", "b")
    assert arguments.texts((), "the peers") == ()
    for wrong in ("abc", b"abc", 5, [5], None):
        with pytest.raises(UsageError, match="the peers"):
            arguments.texts(wrong, "the peers")


def test_whole_numbers_of_other_libraries_are_numbers() -> None:
    class Number:
        def __index__(self) -> int:
            return 7

    assert arguments.whole(Number(), "it") == 7
    for wrong in (1.0, "1", None, -1):
        with pytest.raises(UsageError):
            arguments.whole(wrong, "it")


def test_times_are_bounded_by_what_can_be_waited() -> None:
    assert arguments.seconds(1, "it") == 1.0
    assert arguments.seconds(-5, "it") == 0.0
    assert 0 < arguments.seconds(1 << 70, "it") < 1 << 70
    assert arguments.seconds(float("inf"), "it") < 1 << 70
    for wrong in ("1", None, float("nan"), []):
        with pytest.raises(UsageError):
            arguments.seconds(wrong, "it")


def test_paths_come_in_all_their_forms() -> None:
    assert [arguments.path(each, "it") for each in ("a", b"a", Path("a"))] == ["a"] * 3
    for empty in ("", b""):
        with pytest.raises(UsageError, match="the path is empty"):
            arguments.path(empty, "it")
    for wrong in (5, None, "a\0b", "\ud800", b"a\0"):
        with pytest.raises(UsageError, match="it must be a path"):
            arguments.path(wrong, "it")
