"""Upstream's client of the pooled store on a device: gets ``mine``, puts it as ``theirs`` the other way round, and waits."""

from __future__ import annotations

import json
import sys

from mooncake.store import MooncakeDistributedStore, ReplicateConfig


def main() -> None:
    host, device, master = sys.argv[1:]
    store = MooncakeDistributedStore()
    code = store.setup(host, "P2PHANDSHAKE", 16 << 20, 16 << 20, "rdma", device, master)
    assert code == 0, code
    found = store.get("mine")
    config = ReplicateConfig()
    config.preferred_segment = store.get_hostname()
    put = store.put("theirs", found[::-1], config)
    print(json.dumps({"got": len(found), "put": put}), flush=True)
    sys.stdin.readline()
    store.close()


if __name__ == "__main__":
    main()
