"""Follow a long call to its end: progress and notes as they come, then the result."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

from mooncake_cli.output import Output
from mooncake_cli.text import printable
from p2pstore.errors import MooncakeError


def follow(output: Output, events: Iterator[dict[str, Any]], verb: str, unit: str = "B") -> dict[str, Any]:
    """The result of a long call without its ``event`` key. Leaving early, by Ctrl-C too, cancels the call.

    ``unit`` is what its progress counts: bytes, or a word. An event may name a step of its own, and what that counts.
    Data among the events go to standard output.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(events, Generator):
            stack.callback(events.close)
        bar = stack.enter_context(output.progress(verb, unit))
        for event in events:
            kind = event.get("event")
            if kind == "progress":
                if event["total"] > 0 or "step" in event:
                    bar.begin(printable(event.get("step", verb)), printable(event.get("unit", unit)))
                    bar.update(event["done"], event["total"], event.get("peers"))
            elif kind == "data":
                output.raw(event["data"])
            elif kind == "note":
                output.message(printable(event["text"]))
            elif kind == "result":
                return {key: value for key, value in event.items() if key != "event"}
    raise MooncakeError(detail="the agent ended a call without a result")
