"""``mooncake bench transfer``: how fast the transfer engine moves bytes here."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from mooncake_cli.invocation import Invocation

EXAMPLES = {"transfer": ("mooncake bench transfer --duration 2",)}

BLOCK = 1 << 20


def transfer(
    ctx: typer.Context,
    duration: Annotated[
        float, typer.Option("--duration", metavar="SECONDS", min=0.05, max=600, help="Time to measure.")
    ] = 5.0,
) -> None:
    """Measure the transfer engine."""
    from engine.engine import TransferEngine  # noqa: PLC0415 - --help must not wait for it

    invocation: Invocation = ctx.obj
    with TransferEngine() as target, TransferEngine() as initiator:
        target.register_memory(bytearray(BLOCK))
        local = initiator.register_memory(bytearray(BLOCK))
        segment = initiator.open_segment(target.segment_name)
        count, began = 0, time.monotonic()
        while (took := time.monotonic() - began) < duration:
            initiator.read(local, segment, segment.buffers[0].address)
            count += 1
    speed = count * BLOCK / took / 1e9
    line = f"Test completed: duration {took:.2f}, batch count {count}, throughput {speed:.2f} GB/s"
    invocation.output.data({"duration": took, "batches": count, "gbps": speed}, human=line, quiet=[line])
