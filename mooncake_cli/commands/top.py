"""``mooncake top``: what this node moves now, which gets run, and from whom."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import typer

from mooncake_cli.intervals import Count, Interval, sleep, ticks
from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column, Output
from mooncake_cli.screen import can_draw, whole_screen
from mooncake_cli.text import counted, printable, shortened
from p2pstore.agent.client import AgentClient
from p2pstore.objects.units import format_seconds, format_size

EXAMPLES = {"top": ("mooncake top", "mooncake top --interval 5", "mooncake top --json --count 3 | jq .receiving")}

GETS = (
    Column("GET", style="bold"),
    Column("STEP"),
    Column("DONE", right=True),
    Column("RATE", right=True),
    Column("PEERS", right=True),
    Column("FOR", right=True),
    Column("TO"),
)
PEERS = (Column("FROM", style="bold"), Column("RATE", right=True), Column("IN ALL", right=True))

SHOWN_PEERS = 10
"""Peers that people are shown, those first that send the most."""


class Moment(NamedTuple):
    """What is compared with the moment before: bytes so far, when, and of which agent."""

    at: float
    pid: int
    pulled: int
    sent: int
    granted: int
    peers: Mapping[str, int]
    gets: Mapping[tuple[str, str], int]


def top(ctx: typer.Context, interval: Interval = 2.0, count: Count = None) -> None:
    """Show what this node moves, until q or Ctrl-C.

    Which gets run, how far and how fast each is, and which peers send to this node. Where there is no terminal one
    look is printed, or --count of them; with --json each is a line.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    client = invocation.client()
    if output.mode != "human" or not can_draw():
        before = moment(client.status())
        for _ in ticks(interval, count or 1, sleep):
            before = _print(output, client, before)
        return
    before = moment(client.status())
    try:
        with whole_screen() as screen:
            screen.draw(["looking ..."])
            for _ in ticks(interval, count, screen.wait):
                answer = client.status()
                now = moment(answer)
                screen.draw([*report(output, record(before, now, answer)), "", "q quits"])
                before = now
    except KeyboardInterrupt:
        pass  # it ends as by q


def _print(output: Output, client: AgentClient, before: Moment) -> Moment:
    answer = client.status()
    now = moment(answer)
    found = record(before, now, answer)
    if output.mode == "quiet":
        output.line(f"{found['receiving']:.0f} {found['sending']:.0f}")
    else:
        output.record(found, "\n".join(report(output, found)))
    return now


def moment(answer: Mapping[str, Any]) -> Moment:
    """What of a status is compared with that of later."""
    return Moment(
        time.monotonic(),
        int(answer["pid"]),
        int(answer.get("bytes_pulled", 0)),
        int(answer.get("bytes_sent", 0)),
        int(answer.get("bytes_granted", 0)) + int(answer.get("rdma_bytes_granted", 0)),
        {peer["node"]: int(peer["bytes"]) for peer in answer.get("peers", [])},
        {(get["name"], get["dest"]): int(get["done"]) for get in answer.get("running_gets", []) if get["unit"] == "B"},
    )


def record(before: Moment, now: Moment, answer: Mapping[str, Any]) -> dict[str, Any]:
    """One look: rates in bytes a second since the one before; 0 where the agent is another one since."""
    seconds = max(now.at - before.at, 1e-9)
    same = before.pid == now.pid

    def rate(then: int | None, since: int) -> float:
        return round(max(0, since - then) / seconds, 1) if same and then is not None else 0.0

    gets = [
        {**get, "rate": rate(before.gets.get((get["name"], get["dest"])), get["done"]) if get["unit"] == "B" else None}
        for get in answer.get("running_gets", [])
    ]
    peers = [
        {"node": node, "rate": rate(before.peers.get(node, 0), count), "bytes": count}
        for node, count in now.peers.items()
    ]
    return {
        "node": answer["node"],
        "uptime": answer.get("uptime", 0),
        "metadata_ok": answer.get("metadata_ok", True),
        "objects": answer["objects"],
        "serving_bytes": answer.get("serving_bytes", 0),
        "receiving": rate(before.pulled, now.pulled),
        "sending": rate(before.sent, now.sent),
        "granting": rate(before.granted, now.granted),
        "receivers": answer.get("receivers", 0),
        "waiting": answer.get("gets_waiting", 0),
        "gets": gets,
        "peers": sorted(peers, key=lambda peer: (-peer["rate"], -peer["bytes"], peer["node"])),
    }


def report(output: Output, found: Mapping[str, Any]) -> list[str]:
    """One look, as people read it."""
    metadata = "" if found["metadata_ok"] else "; the metadata server does not answer"
    serving = f"{counted(found['objects'], 'object')}, {format_size(found['serving_bytes'])}"
    granting = f"   allowing {_rate(found['granting'])} to be read" if found["granting"] else ""
    waiting = f"   {found['waiting']} more wait" if found["waiting"] else ""
    sending = f"sending {_rate(found['sending'])} to {counted(found['receivers'], 'receiver')}"
    lines = [
        f"{printable(found['node'])}, up {format_seconds(found['uptime'])}: {serving}{metadata}",
        f"receiving {_rate(found['receiving'])}   {sending}{granting}{waiting}",
    ]
    if found["gets"]:
        lines += ["", *output.table(GETS, [_get(get) for get in found["gets"]]).splitlines()]
    busy: Sequence[Mapping[str, Any]] = [peer for peer in found["peers"] if peer["rate"]][:SHOWN_PEERS]
    if busy:
        rows = [(printable(peer["node"]), _rate(peer["rate"]), format_size(peer["bytes"])) for peer in busy]
        lines += ["", *output.table(PEERS, rows).splitlines()]
    return lines


def _get(get: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        shortened(get["name"]),
        printable(get["step"]),
        "-" if get["percent"] is None else f"{get['percent']:g} %",
        _rate(get["rate"]) if get["rate"] else "-",
        str(get["peers"]),
        format_seconds(get["seconds"]),
        shortened(get["dest"]),
    )


def _rate(rate: float) -> str:
    return f"{format_size(rate)}/s"
