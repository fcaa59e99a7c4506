"""One side of a bench: ``python -m engine.bench target|initiator KIND``, driven by ``engine.bench.process``."""

from __future__ import annotations

import sys
import time
from typing import Any

from engine.bench.cases import Case
from engine.bench.child import Answer, serve
from engine.bench.initiators import Initiator, OurInitiator, SocketInitiator, WheelInitiator
from engine.bench.targets import Target, TargetAddress, WheelTarget
from engine.bench.verbs_loop import PerftestInitiator, VerbsInitiator


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


MAKERS = {"target": _target, "initiator": _initiator}

if __name__ == "__main__":
    serve(MAKERS, sys.argv[1:])
