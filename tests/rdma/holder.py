"""A process that holds a file: registers it, prints where it is, and serves until it is killed."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

from engine.memory.buffers import FilesBuffer
from engine.memory.file_spans import FileSpan
from engine.serving.segment_server import SegmentServer


def main(path: str, size: str, device: str) -> None:
    with SegmentServer(rdma=device) as server:
        address = server.register(FilesBuffer("held", [FileSpan(path, int(size))]))
        print(json.dumps({"peer": asdict(server.address_of_self()), "address": address}), flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
