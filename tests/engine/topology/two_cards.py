"""Two network cards to one peer, in network namespaces of their own: run by test_two_cards.py under ``unshare -n``.

Prints the bytes that each card received of two reads of ``SIZE`` bytes, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from engine.memory.buffers import MemoryBuffer
from engine.serving.segment_server import SegmentServer
from engine.topology import discover, source_addresses
from engine.transports.base import PeerAddress
from engine.transports.into_memory import IntoMemory
from engine.transports.tcp import TcpTransport

SIZE = 8 << 20
PEER = "10.9.0.9"
OURS = {"a0": "10.9.0.1", "a1": "10.9.0.2"}


def ip(*words: str, inside: int = 0) -> None:
    enter = ["nsenter", "-t", str(inside), "-n"] if inside else []
    subprocess.run([*enter, "ip", *words], check=True)


def serve() -> None:
    """The peer: waits for its address, then serves one buffer until its input ends."""
    print("inside", flush=True)
    sys.stdin.readline()
    with SegmentServer(PEER) as server:
        address = server.register(MemoryBuffer("x", bytes(SIZE)))
        print(json.dumps({"port": server.data_port, "segment": server.segment_name, "address": address}), flush=True)
        sys.stdin.read()


def connect_namespaces(peer: int) -> None:
    ip("link", "set", "lo", "up")
    ip("link", "set", "lo", "up", inside=peer)
    ip("link", "add", "br0", "type", "bridge", inside=peer)
    for number, (card, address) in enumerate(OURS.items()):
        # A card answers for its own address only, as hosts with several cards on one network are set up.
        other = f"b{number}"
        ip("link", "add", card, "type", "veth", "peer", "name", other, "netns", str(peer))
        ip("link", "set", other, "master", "br0", "up", inside=peer)
        Path(f"/proc/sys/net/ipv4/conf/{card}/arp_ignore").write_text("1")
        Path(f"/proc/sys/net/ipv4/conf/{card}/rp_filter").write_text("0")
        ip("addr", "add", f"{address}/24", "dev", card)
        ip("link", "set", card, "up")
    Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("0")
    ip("addr", "add", f"{PEER}/24", "dev", "br0", inside=peer)
    ip("link", "set", "br0", "up", inside=peer)


def received(card: str) -> int:
    return int(Path(f"/sys/class/net/{card}/statistics/rx_bytes").read_text())


def main() -> None:
    # /sys shows the namespace in which it was mounted.
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    peer = subprocess.Popen(
        ["unshare", "-n", sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert peer.stdin is not None
    assert peer.stdout is not None
    try:
        assert peer.stdout.readline() == "inside\n"
        connect_namespaces(peer.pid)
        peer.stdin.write("go\n")
        peer.stdin.flush()
        told = json.loads(peer.stdout.readline())
        deadline = time.monotonic() + 60
        while len(source_addresses(discover(), PEER)) < 2:
            assert time.monotonic() < deadline, discover()
            time.sleep(0.05)
        before = {card: received(card) for card in OURS}
        transport = TcpTransport()
        for _ in range(2):
            channel = transport.open(PeerAddress(told["segment"], PEER, told["port"]))
            channel.submit(told["address"], SIZE)
            channel.receive(IntoMemory(memoryview(bytearray(SIZE))))
            channel.close()
        print(json.dumps({card: received(card) - before[card] for card in OURS}))
    finally:
        peer.communicate(timeout=60)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
