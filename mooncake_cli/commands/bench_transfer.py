"""``mooncake bench transfer``: how fast the transfer engine moves bytes, here or between two machines."""

from __future__ import annotations

import csv
import signal
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine import signals
from mooncake_cli.bench_options import Driven, Duration, Rounds, Threads, Whose, block, chosen, numbers, size_of
from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column, Output
from p2pstore.errors import ListenRefused, StorageError

if TYPE_CHECKING:
    from engine.bench import Plan, Row

EXAMPLES = {
    "transfer": (
        "mooncake bench transfer",
        "mooncake bench transfer --block-size 4KiB:64MiB --batch-size 1,16 --threads 1,4",
        "mooncake bench transfer --engine both --verify --operation read,write",
        "mooncake bench transfer --mode target --local-hostname 10.0.0.2 --insecure   # prints its segment",
        "mooncake bench transfer --target 10.0.0.2:15342 --plot bandwidth.png         # on another node",
        "mooncake bench transfer --transport rdma --block-size 1MiB,16MiB --batch-size 16",
    )
}

DEFAULT_BLOCKS = "64KiB,1MiB,16MiB"


class Mode(str, Enum):
    """Which side this process is."""

    INITIATOR = "initiator"
    TARGET = "target"


class Over(str, Enum):
    """What carries the bytes."""

    TCP = "tcp"
    RDMA = "rdma"


def transfer(
    ctx: typer.Context,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="SEGMENT", help="Measure against this segment [default: start a target here]."
        ),
    ] = None,
    operation: Annotated[
        str, typer.Option("--operation", metavar="LIST", help="read, write and mixed, separated by commas.")
    ] = "read",
    block_size: Annotated[
        str, typer.Option("--block-size", metavar="SIZES", help="Sizes of a request: a list, or FIRST:LAST doubling.")
    ] = DEFAULT_BLOCKS,
    batch_size: Annotated[
        str,
        typer.Option("--batch-size", metavar="NUMBERS", help="Requests in a batch: a list, or FIRST:LAST doubling."),
    ] = "1",
    threads: Threads = "1,4",
    duration: Duration = 3.0,
    warm_up: Annotated[float, typer.Option("--warm-up", metavar="SECONDS", help="Time before it that is not.")] = 1.0,
    rounds: Rounds = 3,
    driven: Whose = Driven.OURS,
    verify: Annotated[bool, typer.Option("--verify", help="Check that what arrives is what was sent.")] = False,
    transport: Annotated[Over, typer.Option("--transport", metavar="WAY", help="tcp or rdma.")] = Over.TCP,
    device: Annotated[
        str, typer.Option("--device", metavar="DEVICE", help="The RDMA device to use here [default: the first].")
    ] = "",
    target_device: Annotated[
        str, typer.Option("--target-device", metavar="DEVICE", help="The RDMA device of a target that is started.")
    ] = "",
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the figures to FILE too.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw bandwidth over block size into FILE (.png, .svg)."),
    ] = None,
    metadata_server: Annotated[
        str, typer.Option("--metadata-server", metavar="URL", help="Where segments are found, in upstream's terms.")
    ] = "P2PHANDSHAKE",
    mode: Annotated[
        Mode, typer.Option("--mode", metavar="SIDE", help="initiator or target: which side this process is.")
    ] = Mode.INITIATOR,
    local_hostname: Annotated[
        str, typer.Option("--local-hostname", metavar="HOST[:PORT]", help="A target's address.")
    ] = "127.0.0.1",
    buffer_size: Annotated[str, typer.Option("--buffer-size", metavar="SIZE", help="Memory of a target.")] = "1GiB",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let a target listen beyond loopback; anyone there may write to it.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write into a segment that is no bench's; destroys what it holds.")
    ] = False,
) -> None:
    """Measure the transfer engine.

    Without --target it starts a target on this machine. --engine compares with Mooncake's own engine.

    Bandwidth is in decimal GB/s and the median of the rounds; latencies are in microseconds, from the submission of a
    batch to its end. Every round gives the engines and the socket loop the same time, one after the other: what a
    socket loop reaches is what the machine allows at that moment.

    Over RDMA the yardstick is perftest's ib_read_bw where it is installed, else the smallest loop of verbs; our engine
    over TCP is measured beside it.
    """
    from engine.bench import Engine, Operation, Plan, run, sweep  # noqa: PLC0415 - --help must not wait for it

    invocation: Invocation = ctx.obj
    output = invocation.output
    if mode is Mode.TARGET:
        length = size_of("--buffer-size", buffer_size)
        _serve(output, local_hostname, metadata_server, length, transport.value, device, insecure=insecure)
        return
    engines = (Engine.OURS, Engine.MOONCAKE) if driven is Driven.BOTH else (Engine(driven.value),)
    if transport is Over.RDMA and target is None:
        engines = (*engines, Engine.OURS_TCP)
    plan = Plan(
        cases=sweep(
            chosen("--operation", operation, Operation),
            numbers("--block-size", block_size),
            numbers("--batch-size", batch_size),
            numbers("--threads", threads),
        ),
        engines=engines,
        duration=duration,
        warm_up=warm_up,
        rounds=rounds,
        verify=verify,
        target=target,
        metadata_server=metadata_server,
        force=force,
        transport=transport.value,
        device=device,
        target_device=target_device,
    )
    if plot is not None:
        from mooncake_cli.plot import check  # noqa: PLC0415 - as above

        check(plot)
    rows = []
    for row in run(plan, output.message):
        rows.append(row)
        output.detail(_line(row))
    if csv_file is not None:
        _write_csv(csv_file, rows)
    if plot is not None:
        from mooncake_cli.plot import draw  # noqa: PLC0415 - as above

        draw(plot, [row.to_json() for row in rows])
    documents = [row.to_json() for row in rows]
    closing = closing_line([row for row in rows if row.engine is engines[0]])
    human = output.table(*table(documents)) + "\n" + closing if output.mode == "human" else ""
    output.data(_document(plan, documents), human=human, quiet=[closing])


def closing_line(rows: Sequence[Row]) -> str:
    """The last line of upstream's ``transfer_engine_bench``, over all cases."""
    seconds = sum(row.seconds for row in rows)
    throughput = sum(row.bytes for row in rows) / seconds / 1e9 if seconds else 0.0
    batches = sum(row.batches for row in rows)
    return f"Test completed: duration {seconds:.2f}, batch count {batches}, throughput {throughput:.2f} GB/s"


def table(documents: Sequence[dict[str, Any]]) -> tuple[list[Column], list[list[str]]]:
    """Upstream's columns; engine and operation only where there are several."""
    engines = len({each["engine"] for each in documents}) > 1
    operations = len({each["operation"] for each in documents}) > 1
    yardstick = documents[0].get("yardstick", "socket") if documents else "socket"
    shown: list[tuple[Column, Callable[[dict[str, Any]], str]]] = []
    if operations:
        shown.append((Column("Op"), lambda each: each["operation"]))
    if engines:
        shown.append((Column("Engine", style="bold"), lambda each: each["engine"]))
    shown += [
        (Column("BlkSize", right=True), lambda each: block(each["block_size"])),
        (Column("Batch", right=True), lambda each: str(each["batch_size"])),
        (Column("Threads", right=True), lambda each: str(each["threads"])),
        (Column("BW (GB/s)", right=True), lambda each: f"{each['gbps']:.3f}"),
        (Column(f"% of {yardstick}", right=True), lambda each: _percent(each["percent_of_socket"])),
        (Column("Avg Lat (us)", right=True), lambda each: f"{each['average_us']:.1f}"),
    ]
    if yardstick == "socket":
        shown += [
            (Column("P99 (us)", right=True), lambda each: f"{each['p99_us']:.1f}"),
            (Column("P999 (us)", right=True), lambda each: f"{each['p999_us']:.1f}"),
        ]
    else:  # over RDMA, what the processor has to do is the question
        shown.append((Column("CPU s/GB", right=True), lambda each: f"{each['cpu_seconds_per_gb']:.2f}"))
    return [column for column, _ in shown], [[cell(each) for _, cell in shown] for each in documents]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _line(row: Row) -> str:
    case = row.case
    size = f"{block(case.block_size)} x {case.batch_size} x {case.threads}"
    return f"{case.operation.value} {size}: {row.engine.value} {row.gbps:.3f} GB/s"


def _document(plan: Plan, rows: list[dict[str, Any]]) -> dict[str, Any]:
    from engine.bench import wheel  # noqa: PLC0415 - --help must not wait for it

    wheel_version = wheel.version() if any(row["engine"] == "mooncake" for row in rows) else None
    return {
        "target": plan.target,
        "duration": plan.duration,
        "warm_up": plan.warm_up,
        "verified": plan.verify,
        "mooncake_version": wheel_version,
        "rows": rows,
    }


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    documents = [{key: value for key, value in row.to_json().items() if not isinstance(value, list)} for row in rows]
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(documents[0]))
            writer.writeheader()
            writer.writerows(documents)
    except OSError as error:
        raise StorageError(path=str(path), detail=error.strerror or str(error)) from None


def _serve(
    output: Output,
    local_hostname: str,
    metadata_server: str,
    length: int,
    protocol: str,
    device: str,
    *,
    insecure: bool,
) -> None:
    from engine.bench.targets import Target  # noqa: PLC0415 - as above
    from engine.net import addresses, sockets  # noqa: PLC0415 - --help must not wait for it
    from engine.net.listening import address_of  # noqa: PLC0415 - as above

    host, _ = addresses.given_place(local_hostname)
    if not insecure and sockets.is_exposed(address_of(host)):
        raise ListenRefused(address=host)
    ended = threading.Event()
    for number in signals.ending():
        signal.signal(number, lambda *_: ended.set())
    target = Target(length, local_hostname, metadata_server, protocol, device)
    try:
        output.record(target.address.to_json(), target.address.segment)
        ended.wait()
    finally:
        target.close()
