"""Streams are cut into whole events, wherever their bytes were parted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.serving.proxy import events as module
from p2pstore.serving.proxy.events import BadStream, Events, Says, count, look


@given(
    st.lists(st.sampled_from([b"data: {}", b": ping", b"data: a\r\ndata: b", b"data: [DONE]"]), max_size=6), st.data()
)
def test_cut_anywhere_they_are_whole(parts: list[bytes], data: st.DataObject) -> None:
    text = b"".join(part + data.draw(st.sampled_from([b"\n\n", b"\r\n\r\n"])) for part in parts) + b"data: half"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    found, events = b"", Events()
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        whole = events.feed(text[start:end])
        assert whole == b"" or whole.endswith((b"\n\n", b"\r\n\r\n"))
        found += whole
    assert found == text.removesuffix(b"data: half")
    assert count(found) == len(parts)
    assert events.unfinished
    assert events.done == (b"data: [DONE]" in parts)


def test_it_is_done_when_it_says_so() -> None:
    events = Events()
    events.feed(b'data: {"choices": []}\n\n')
    assert not events.done
    events.feed(b"data: [DONE]\n\n")
    assert events.done
    assert not events.unfinished


def test_a_model_that_says_the_word_is_not_done() -> None:
    events = Events()
    events.feed(b'data: {"choices":[{"text":"[DONE]"}]}\n\n')
    events.feed(b'data: {"choices":[{"text":"data: [DONE]"}]}\n\n')
    assert not events.done


def test_an_event_without_an_end_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EVENT_BYTES", 100)
    events = Events()
    events.feed(b"data: " + b"x" * 90)
    with pytest.raises(BadStream, match="more than 100 bytes"):
        events.feed(b"x" * 10)


def one(**said: object) -> bytes:
    return b"data: " + json.dumps(said).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("events", "says"),
    [
        (b"", Says.NOTHING),
        (b": ping\n\n", Says.NOTHING),
        (b"event: message\nid: 7\n\n", Says.NOTHING),
        (one(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}]), Says.NOTHING),
        (one(choices=[{"index": 0, "delta": {"role": "assistant"}, "logprobs": None, "finish_reason": None}]), Says.NOTHING),
        (one(choices=[{"index": 0, "delta": {"content": "hi"}}]), Says.TOKEN),
        (one(choices=[{"index": 0, "delta": {"reasoning_content": "hm"}}]), Says.TOKEN),
        (one(choices=[{"index": 0, "delta": {"tool_calls": [{}]}}]), Says.TOKEN),
        (one(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]), Says.TOKEN),
        (one(choices=[{"index": 0, "text": "hi"}]), Says.TOKEN),
        (one(choices=[{"index": 0, "text": ""}]), Says.NOTHING),
        (one(choices=[], usage={}), Says.TOKEN),
        (b"data: [DONE]\n\n", Says.TOKEN),
        (one(error={"message": "dead"}), Says.ERROR),
        (one(), Says.GARBAGE),
        (b"data: [1]\n\n", Says.GARBAGE),
        (b"data: {\n\n", Says.GARBAGE),
        (b"data: " + b"[" * 100_000 + b"\n\n", Says.GARBAGE),
        (b"<html>\n\n", Says.GARBAGE),
        (b"hello: world\n\n", Says.GARBAGE),
        (b"\xff\xfe\n\n", Says.GARBAGE),
        (b": ping\n\n" + one(choices=[{"index": 0, "text": "hi"}]), Says.TOKEN),
    ],
)  # fmt: skip
def test_what_a_streams_first_events_say(events: bytes, says: Says) -> None:
    assert look(events)[0] is says


@given(st.binary(max_size=200))
def test_whatever_comes_is_looked_at(data: bytes) -> None:
    assert look(data)[0] in Says
