"""One side of a bench: ``python -m engine.bench target|initiator KIND``, driven by ``engine.bench.process``."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from engine.bench.cases import Case
from engine.bench.initiators import Initiator, OurInitiator, SocketInitiator, WheelInitiator
from engine.bench.process import error_to_json
from engine.bench.targets import Target, TargetAddress, WheelTarget
from engine.bench.verbs_loop import PerftestInitiator, VerbsInitiator

Answer = Callable[[dict[str, Any]], Any]
"""What a question is answered with."""


def _target(kind: str, arguments: dict[str, Any]) -> tuple[object, Any, Answer]:
    """A target, what the parent is told of it, and the answer to all questions: the processor time used so far."""
    made = WheelTarget(**arguments) if kind == "mooncake" else Target(**arguments)
    return made, made.address.to_json(), lambda _: time.process_time()


def _initiator(kind: str, arguments: dict[str, Any]) -> tuple[object, Any, Answer]:
    """An initiator, nothing to tell, and the answers to what it is to do."""
    target, length = TargetAddress(**arguments["target"]), arguments["length"]
    made: Initiator
    more = {name: value for name, value in arguments.items() if name not in {"target", "length"}}
    if kind == "socket":
        made = SocketInitiator(target, length)
    elif kind == "verbs":
        made = VerbsInitiator(target, length, **more)
    elif kind == "perftest":
        made = PerftestInitiator(target, length, **more)
    else:
        made = (WheelInitiator if kind == "mooncake" else OurInitiator)(target, length, **more)

    def answer(question: dict[str, Any]) -> Any:
        case = Case.from_json(question["case"])
        if question["do"] == "measure":
            return made.measure(case, question["seconds"]).to_json()
        check = made.verify if question["do"] == "verify" else made.verify_after
        check(case, question["seed"])
        return None

    return made, None, answer


def main(arguments: list[str]) -> None:
    """Answer until standard input ends."""
    role, kind = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Upstream's engine may print; only answers are to reach the parent.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    make = {"target": _target, "initiator": _initiator}[role]
    answer: Answer | None = None
    for line in sys.stdin:
        try:
            if answer is None:
                # Kept until the end: upstream's engine is gone when nobody holds it.
                _kept, hello, answer = make(kind, json.loads(line))
                say({"result": hello})
            else:
                say({"result": answer(json.loads(line))})
        except Exception as error:  # noqa: BLE001 - the parent raises it
            say({"error": error_to_json(error)})
    # Without the interpreter's farewell: upstream's engine has threads that take it badly.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
