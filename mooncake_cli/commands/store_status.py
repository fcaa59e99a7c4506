"""``mooncake store status``: what the store's master has, and who calls it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from mooncake_cli.commands.store import Admin, Master, admin_client
from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column
from mooncake_cli.text import counted, printable, shortened
from p2pstore.objects.units import format_seconds, format_size

if TYPE_CHECKING:
    from mooncake_cli.output import Output

EXAMPLES = {
    "status": (
        "mooncake store status",
        "mooncake store status --master 10.0.0.1",
        "mooncake store status --json | jq .numbers",
    )
}

SEGMENTS = (
    Column("SEGMENT", style="bold"),
    Column("ENDPOINT"),
    Column("SIZE", right=True),
    Column("USED", right=True),
    Column("STATE"),
)
CLIENTS = (
    Column("CLIENT", style="bold"),
    Column("VERSION"),
    Column("OPEN", right=True),
    Column("CALLS", right=True),
    Column("FAILED", right=True),
    Column("UNKNOWN", right=True),
    Column("LOOKED UP", right=True),
    Column("FOUND", right=True),
)


def status(ctx: typer.Context, master: Master = None, admin: Admin = None) -> None:
    """Show what the store's master has, and who calls it.

    Of upstream's master, too, as far as that tells.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    answer = admin_client(invocation, master, admin).status()
    human = _report(output, answer) if output.mode == "human" else ""
    output.data(answer, human=human, quiet=[printable(answer["state"])])


def _report(output: Output, answer: Mapping[str, Any]) -> str:
    parts = [output.fields(_fields(answer))]
    if answer["segments"]:
        parts.append(output.table(SEGMENTS, [_segment(each) for each in answer["segments"]]))
    if answer["clients"]:
        parts.append(output.table(CLIENTS, [_client(each) for each in answer["clients"]]))
    return "\n".join(parts)


def _fields(answer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    numbers: Mapping[str, float] = answer["numbers"]

    def number(name: str) -> int:
        return int(numbers.get(name, 0))

    version = answer["version"]
    yield "master", f"mooncake {printable(version)}" if version else "upstream's"
    if answer["address"]:
        yield "address", printable(answer["address"])
    up = f", for {format_seconds(answer['up'])}" if answer["up"] is not None else ""
    yield "state", printable(answer["state"]) + up
    used, size = number("allocated_bytes"), number("total_capacity_bytes")
    share = f" ({100 * used / size:.0f} %)" if size else ""
    yield "memory", f"{format_size(used)} of {format_size(size)}{share}"
    yield "keys", f"{number('key_count'):,}"
    versions: Counter[str] = Counter()
    for each in answer["clients"]:
        versions[each["version"] or "not known"] += each["connected"]
    if versions := +versions:
        shown = ", ".join(f"{printable(name)}: {count}" for name, count in sorted(versions.items()))
        yield "clients", f"{counted(versions.total(), 'connection')} (version {shown})"
    else:
        yield "clients", f"{number('active_clients'):,}"
    if gets := number("total_get_nums"):
        yield "reads", f"{gets:,}, of which {100 * number('valid_get_nums') / gets:.0f} % found a value"
    yield "evicted", f"{counted(number('evicted_key_count'), 'key')}, {format_size(number('evicted_size_bytes'))}"
    if unknown := answer["unknown_calls"]:
        shown = ", ".join(f"{printable(name)} ({count:,})" for name, count in unknown.items())
        yield "unknown calls", f"{shown}; 'mooncake store why' says whose"


def _segment(segment: Mapping[str, Any]) -> tuple[str, ...]:
    size, used = segment["size_bytes"], segment["allocator_used_bytes"]
    share = f" ({100 * used / size:.0f} %)" if size else ""
    name, endpoint, state = (shortened(segment[key]) for key in ("segment_name", "te_endpoint", "status"))
    return name, endpoint, format_size(size), format_size(used) + share, state.lower()


def _client(client: Mapping[str, Any]) -> tuple[str, ...]:
    gone = "" if client["connected"] else f" ({format_seconds(client['last_ago'])} ago)"
    return (
        printable(client["address"]) + gone,
        printable(client["version"] or "-"),
        f"{client['connected']:,}",
        f"{client['calls']:,}",
        f"{sum(client['failures'].values()):,}",
        f"{sum(client['unknown_calls'].values()):,}",
        f"{client['lookups']:,}",
        f"{client['found']:,}",
    )
