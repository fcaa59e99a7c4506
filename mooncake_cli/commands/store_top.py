"""``mooncake store top``: what the store's master is doing, a line for each interval."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import typer

from mooncake_cli.commands.store import Admin, Master, admin_client
from mooncake_cli.intervals import Count, Interval, sleep, ticks
from mooncake_cli.invocation import Invocation
from p2pstore.objects.units import format_size

EXAMPLES = {"top": ("mooncake store top", "mooncake store top --interval 10 --count 6", "mooncake store top --json")}

PUTS = (("PutStart", 0), ("UpsertStart", 0), ("BatchPutStart", 3), ("BatchUpsertStart", 3))
LOOKUPS = (("ExistKey", 0), ("BatchExistKey", 3))
READS = (("GetReplicaList", 0), ("BatchGetReplicaList", 3))
"""Calls, and which of their counts is that of keys."""

HEADINGS = ("PUT/S", "LOOKUP/S", "READ/S", "HIT", "EVICT/S", "KEYS", "USED", "FULL", "CLIENTS")
WIDTH = 10
"""Columns of each."""

LINES = 20
"""After so many the headings are repeated."""


class Moment(NamedTuple):
    """What is compared with the moment before."""

    at: float
    puts: int
    lookups: int
    reads: int
    gets: float
    found: float
    evicted: float


def top(
    ctx: typer.Context,
    interval: Interval = 2.0,
    count: Count = None,
    master: Master = None,
    admin: Admin = None,
) -> None:
    """Show what the store's master is doing, a line for each interval.

    Keys put, looked up and read a second; HIT is the share of reads that found a value. Of upstream's master the
    calls are counted, and not the keys of a batch.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    client = admin_client(invocation, master, admin)
    before = _moment(client.status())
    for lines in ticks(interval, count, sleep):
        answer = client.status()
        now = _moment(answer)
        row = _row(before, now, answer)
        if output.mode == "human" and not lines % LINES:
            output.line("".join(heading.rjust(WIDTH) for heading in HEADINGS))
        output.record(row, _line(row))
        before = now


def _moment(answer: Mapping[str, Any]) -> Moment:
    numbers, calls = answer["numbers"], answer["calls"]

    def keys(of: tuple[tuple[str, int], ...]) -> int:
        return sum(calls.get(call, (0,) * 5)[place] for call, place in of)

    def number(name: str) -> float:
        return float(numbers.get(name, 0))

    puts, lookups, reads = keys(PUTS), keys(LOOKUPS), keys(READS)
    if not calls:
        puts = int(number("put_start_requests") + number("batch_put_start_items"))
        lookups = int(number("exist_key_requests") + number("batch_exist_key_items"))
        reads = int(number("get_replica_list_requests") + number("batch_get_replica_list_items"))
    found = number("valid_get_nums")
    return Moment(time.monotonic(), puts, lookups, reads, number("total_get_nums"), found, number("evicted_key_count"))


def _row(before: Moment, now: Moment, answer: Mapping[str, Any]) -> dict[str, Any]:
    seconds = now.at - before.at
    numbers = answer["numbers"]
    gets = now.gets - before.gets
    return {
        "puts": round((now.puts - before.puts) / seconds, 1),
        "lookups": round((now.lookups - before.lookups) / seconds, 1),
        "reads": round((now.reads - before.reads) / seconds, 1),
        "hits": round((now.found - before.found) / gets, 4) if gets > 0 else None,
        "evicted": round((now.evicted - before.evicted) / seconds, 1),
        "keys": int(numbers.get("key_count", 0)),
        "used": int(numbers.get("allocated_bytes", 0)),
        "size": int(numbers.get("total_capacity_bytes", 0)),
        "clients": int(numbers.get("active_clients", 0)),
    }


def _line(row: Mapping[str, Any]) -> str:
    cells = (
        f"{row['puts']:,.0f}",
        f"{row['lookups']:,.0f}",
        f"{row['reads']:,.0f}",
        "-" if row["hits"] is None else f"{100 * row['hits']:.0f} %",
        f"{row['evicted']:,.0f}",
        f"{row['keys']:,}",
        format_size(row["used"]),
        f"{100 * row['used'] / row['size']:.0f} %" if row["size"] else "-",
        f"{row['clients']:,}",
    )
    return "".join(cell.rjust(WIDTH) for cell in cells)
