"""The child's side of a process of a bench: it is made, and answers, until its standard input ends."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.bench.process import error_to_json

Answer = Callable[[dict[str, Any]], Any]
"""What a question is answered with."""

Maker = Callable[[str, dict[str, Any]], tuple[object, Any, Answer]]
"""From a kind and its arguments: what is made, which is kept until the end, what the parent is told, the answers."""


def serve(makers: Mapping[str, Maker], arguments: Sequence[str]) -> None:
    """Answer until standard input ends; ``arguments`` are a role, whose maker it is, and a kind."""
    role, kind = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Upstream's engine may print; only answers are to reach the parent.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    answer: Answer | None = None
    for line in sys.stdin:
        try:
            if answer is None:
                # Kept until the end: upstream's engine is gone when nobody holds it.
                _kept, hello, answer = makers[role](kind, json.loads(line))
                say({"result": hello})
            else:
                say({"result": answer(json.loads(line))})
        except Exception as error:  # noqa: BLE001 - the parent raises it
            say({"error": error_to_json(error)})
    # Without the interpreter's farewell: upstream's engine has threads that take it badly.
    os._exit(0)
