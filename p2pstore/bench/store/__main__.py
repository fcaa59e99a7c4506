"""A process of the store's bench: ``python -m p2pstore.bench.store master|giver|worker KIND``."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

from engine.bench.child import Answer, serve
from p2pstore.bench.store.cases import Case
from p2pstore.bench.store.worker import Worker, client

START_SECONDS = 30.0
"""For a master to listen."""


def _master(_: str, arguments: dict[str, Any]) -> tuple[object, Any, Answer]:
    """A master of ours on a free port, and its address; of the real one there is a program."""
    from p2pstore.kv.master import loops  # noqa: PLC0415 - a client does not need it
    from p2pstore.kv.master.run import calm_collector  # noqa: PLC0415 - as above
    from p2pstore.kv.master.server import Master, MasterSettings  # noqa: PLC0415 - as above
    from p2pstore.kv.pool.pool import Pool  # noqa: PLC0415 - as above
    from p2pstore.kv.pool.settings import PoolSettings  # noqa: PLC0415 - as above

    loop = loops.new()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    master = Master(MasterSettings(port=0), Pool(PoolSettings(**arguments), time.monotonic))
    asyncio.run_coroutine_threadsafe(master.start(), loop).result(START_SECONDS)
    calm_collector()
    return master, {"address": master.address}, lambda _: time.process_time()


def _giver(kind: str, arguments: dict[str, Any]) -> tuple[object, Any, Answer]:
    """A client that gives memory and does nothing else."""
    if kind == "mooncake":
        made: object = client(kind, arguments["master"], arguments["segment"])
    else:
        from p2pstore.kv.client.store import Store  # noqa: PLC0415 - the wheel's process does not need it

        made = Store(arguments["master"], segment_size=arguments["segment"], neighbours=kind == "ours")
    return made, None, lambda _: time.process_time()


def _worker(kind: str, arguments: dict[str, Any]) -> tuple[object, Any, Answer]:
    """The client that is measured."""
    made = Worker("mooncake" if kind == "mooncake" else "ours", **arguments)

    def answer(question: dict[str, Any]) -> Any:
        case = Case.from_json(question["case"])
        if question["do"] == "verify":
            return made.verify(case, question["seed"])
        return made.measure(case, question["seconds"]).to_json()

    return made, None, answer


if __name__ == "__main__":
    serve({"master": _master, "giver": _giver, "worker": _worker}, sys.argv[1:])
