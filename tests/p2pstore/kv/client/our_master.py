"""A master of ours as a process: ``PORT`` and settings of the pool as JSON; says when it listens."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from p2pstore.kv.master.server import Master, MasterSettings
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.settings import PoolSettings


async def main() -> None:
    settings = PoolSettings(**json.loads(sys.argv[2]))
    master = Master(MasterSettings(port=int(sys.argv[1])), Pool(settings, time.monotonic))
    await master.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
