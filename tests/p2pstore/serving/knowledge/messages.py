"""Messages as vLLM writes them, in both forms, and a publisher that has a replay, as its engines do."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import msgpack
import zmq


def stored(
    hashes: Sequence[Any],
    tokens: Sequence[int],
    *,
    parent: Any = None,
    size: int = 4,
    medium: str | None = "GPU",
    **more: Any,
) -> dict[str, Any]:
    return {
        "type": "BlockStored", "block_hashes": list(hashes), "parent_block_hash": parent, "token_ids": list(tokens),
        "block_size": size, "lora_id": None, "medium": medium, "lora_name": None, **more,
    }  # fmt: skip


def removed(hashes: Sequence[Any], medium: str | None = "GPU") -> dict[str, Any]:
    return {"type": "BlockRemoved", "block_hashes": list(hashes), "medium": medium}


CLEARED = {"type": "AllBlocksCleared"}


def as_list(event: dict[str, Any]) -> list[Any]:
    """The older form."""
    return list(event.values())


def batch(*events: Any) -> bytes:
    return msgpack.packb([1.5, list(events), 0])


class Publisher:
    """Sends numbered messages, and those that were sent once more to who asks. ``lose`` are not sent at first."""

    def __init__(self, *, keeps: int = 1000) -> None:
        self._context = zmq.Context()
        self._events = self._context.socket(zmq.PUB)
        self._events.setsockopt(zmq.LINGER, 0)
        self.endpoint = f"tcp://127.0.0.1:{self._events.bind_to_random_port('tcp://127.0.0.1')}"
        self._again = self._context.socket(zmq.ROUTER)
        self._again.setsockopt(zmq.LINGER, 0)
        self.replay = f"tcp://127.0.0.1:{self._again.bind_to_random_port('tcp://127.0.0.1')}"
        self._keeps = keeps
        self.sent: list[tuple[int, bytes]] = []
        self.number = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def say(self, *events: Any, lost: bool = False, payload: bytes | None = None) -> None:
        data = batch(*events) if payload is None else payload
        self.sent = [*self.sent, (self.number, data)][-self._keeps :] if self._keeps else []
        if not lost:
            self._events.send_multipart([b"", self.number.to_bytes(8, "big"), data])
        self.number += 1

    def _serve(self) -> None:
        while not self._over.is_set():
            if not self._again.poll(50):
                continue
            who, _, first = self._again.recv_multipart()
            for number, data in list(self.sent):
                if number >= int.from_bytes(first, "big"):
                    self._again.send_multipart([who, b"", number.to_bytes(8, "big"), data])
            self._again.send_multipart([who, b"", (-1).to_bytes(8, "big", signed=True), b""])

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._context.destroy(linger=0)
