"""A rank of a host, as torchrun would start it, on fake GPUs that all ranks have. Tests run it, and kill it.

Its argument is JSON: ``shared``, the directory of the GPUs' memory, ``devices``, how many there are; ``options``, those
of ``load_tensors``; ``refuse``, a call of the driver that fails; ``stop``, the place at which it says so and stands still; ``strangers`` and
``garbling``, see ``FakeDriver``; ``meet_seconds`` instead of the usual, and ``silent_seconds`` once the file ``from_when`` is there. It says
one line of JSON a time, and goes on when it is told a line.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.cuda import load
from engine.cuda.fake_driver import FakeDriver
from p2pstore import P2PStore
from p2pstore.calls import given
from p2pstore.errors import MooncakeError
from p2pstore.pull import shared_get
from p2pstore.sharing import group, meeting
from p2pstore.sharing.arrivals import Arrivals
from p2pstore.sharing.group import Group
from tests.engine.cuda.gpus import nothing_left
from tests.p2pstore.tensors.on_gpu import OnGpu

STOPS: dict[str, tuple[Any, str, bool]] = {
    "before the meeting": (meeting, "meet", False),
    "before all is handed out": (meeting._Host, "_hand_out", False),
    "after the meeting": (shared_get.SharedGet, "_agreed", False),
    "before a chunk is offered": (Group, "_offer", False),
    "after a chunk was offered": (Group, "_offer", True),
    "before a chunk is copied": (Arrivals, "begin", False),
    "after a chunk was copied": (Arrivals, "finish", True),
    "at the end": (Group, "wait", False),
    "after the end": (Group, "wait", True),
}
"""By name: where a method is, and whether it is to be done before."""


def say(**said: Any) -> None:
    print(json.dumps(said), flush=True)


def stand_still(name: str, goes_on: str) -> None:
    """``goes_on`` is a file: once it is there, so it does."""
    owner, method, after = STOPS[name]
    work: Callable[..., Any] = getattr(owner, method)

    def stopped(*args: Any, **more: Any) -> Any:
        found = work(*args, **more) if after else None
        say(stopped=name)
        while not goes_on or not Path(goes_on).exists():
            time.sleep(0.01)
        setattr(owner, method, work)
        return found if after else work(*args, **more)

    setattr(owner, method, stopped)


def impatient(seconds: float, when: Path) -> None:
    """Wait no longer than this for who says nothing, once that file is there: before, whoever is slow is waited for."""
    while not when.exists():
        time.sleep(0.01)
    group.SILENT_SECONDS = seconds


def let_fail(driver: FakeDriver, call: str) -> None:
    """Let the GPU refuse a call once all have met; most of them once what they share is made."""
    owner, method = (shared_get.SharedGet, "_agreed") if call == "register" else (Group, "start")
    work: Callable[..., Any] = getattr(owner, method)

    def refusing(*args: Any) -> Any:
        driver.refuse(call)
        return work(*args)

    setattr(owner, method, refusing)


def main() -> None:
    told = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    pairs = {kind: [(one, other) for one, other in told.get(kind, ())] for kind in ("strangers", "garbling")}
    driver = FakeDriver(told["devices"], shared=Path(told["shared"]), **pairs)
    load.use(driver)
    given.framework_of = lambda _, device, *__: OnGpu(driver, int(device.partition(":")[2]))  # type: ignore[assignment,return-value]
    if told.get("from_when"):
        given_up = (told["silent_seconds"], Path(told["from_when"]))
        threading.Thread(target=impatient, args=given_up, daemon=True).start()
    meeting.MEET_SECONDS = told.get("meet_seconds", meeting.MEET_SECONDS)
    if told.get("refuse"):
        let_fail(driver, told["refuse"])
    if told.get("stop"):
        stand_still(told["stop"], told.get("goes_on", ""))
    with P2PStore(f"memory://{told['name']}", node=told["name"], connections=2) as store:
        say(ready=True)
        for _ in sys.stdin:
            try:
                found = store.load_tensors("n", share="host", transport="tcp", **told["options"])
            except MooncakeError as error:
                say(error=type(error).__name__, text=str(error))
            else:
                say(
                    tensors={name: hashlib.sha256(data).hexdigest() for name, data in found.items()},
                    from_host=driver.to_devices, from_gpus=driver.to_peers,
                )  # fmt: skip
    nothing_left(driver)
    say(left=threads())


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("share")]


if __name__ == "__main__":
    main()
