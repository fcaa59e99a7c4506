"""``mooncake node``: the agent of this node."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mooncake_cli.commands.jobs import how_far
from mooncake_cli.invocation import Invocation
from mooncake_cli.logfile import follow_log, last_lines
from mooncake_cli.text import counted, printable
from p2pstore.agent.client import AgentClient
from p2pstore.agent.launch import Stopped, ensure_agent, left_behind, stop_agent
from p2pstore.agent.surroundings import differences, surroundings
from p2pstore.doctor.tasks import what_failed
from p2pstore.errors import AgentNotRunning, AgentRunning, MooncakeError, PathNotFound, UsageError
from p2pstore.objects.units import format_seconds, format_size, parse_rate

if TYPE_CHECKING:
    from mooncake_cli.output import Output

START_PATIENCE = 10.0
"""Seconds for which 'node start' waits for a metadata server that does not answer: jobs start both at once."""

SHOWN_JOBS = 10
"""Of those that are running, so many are shown to people by 'status'."""

SHOWN_SUPERSEDED = 8
"""Holdings of earlier versions that are shown to people; ``--json`` has all."""

EXAMPLES = {
    "run": (
        "mooncake node run",
        "mooncake node run --listen 10.0.0.5 --metadata etcd://10.0.0.1:2379",
        "mooncake node run --upload-limit 5Gbit --metrics 127.0.0.1:9401",
    ),
    "start": (
        "mooncake node start",
        "mooncake node start --listen 10.0.0.5 --metadata etcd://10.0.0.1:2379",
        "mooncake node start --home /tmp/second    # another agent on the same host",
    ),
    "stop": ("mooncake node stop",),
    "limit": ("mooncake node limit --upload 500MB/s", "mooncake node limit --upload 0 --download 0    # none"),
    "status": ("mooncake node status", "mooncake node status --json | jq -r .metadata"),
    "logs": ("mooncake node logs", "mooncake node logs -n 100 -f"),
}

Listen = Annotated[
    str | None,
    typer.Option(
        "--listen",
        metavar="PLACE[:PORT[-LAST]]",
        help="Address, interface or network to listen on [default: loopback].",
    ),
]
Node = Annotated[
    str | None,
    typer.Option("--node", metavar="NAME", help="This node's name [default: the host's, and 4 characters]."),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Listen beyond loopback without a cluster secret.")]

HfEndpoint = Annotated[
    str | None,
    typer.Option("--hf-endpoint", metavar="HOST:PORT", help="Serve objects to programs that read the hub here."),
]


Upload = Annotated[
    str | None, typer.Option("--upload-limit", metavar="RATE", help="Send no more a second, like 500MB/s or 5Gbit.")
]
Download = Annotated[
    str | None,
    typer.Option("--download-limit", metavar="RATE", help="Receive no more a second, like 500MB/s or 5Gbit."),
]

Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics", metavar="ADDRESS[:PORT]", help="Serve Prometheus metrics there [default: nowhere; port 9401]."
    ),
]


def run(
    ctx: typer.Context,
    listen: Listen = None,
    node: Node = None,
    insecure: Insecure = False,
    upload_limit: Upload = None,
    download_limit: Download = None,
    metrics: Metrics = None,
    hf_endpoint: HfEndpoint = None,
) -> None:
    """Run the agent in the foreground.

    For systemd, Slurm and Kubernetes. It logs to standard error; SIGTERM ends it cleanly.
    """
    invocation: Invocation = ctx.obj
    settings = invocation.settings(
        listen=listen,
        node=node,
        insecure=insecure or None,
        upload_limit=upload_limit,
        download_limit=download_limit,
        metrics=metrics,
        hf_endpoint=hf_endpoint,
    )
    from p2pstore.agent.agent import run as run_agent  # noqa: PLC0415 - it brings the whole agent along

    raise typer.Exit(run_agent(invocation.find_home(settings), settings, verbose=invocation.verbose))


def start(
    ctx: typer.Context,
    listen: Listen = None,
    node: Node = None,
    insecure: Insecure = False,
    upload_limit: Upload = None,
    download_limit: Download = None,
    metrics: Metrics = None,
    hf_endpoint: HfEndpoint = None,
) -> None:
    """Start the agent in the background.

    'register' and 'get' start one by themselves; this one listens where you say. Prints what 'status' prints.
    """
    invocation: Invocation = ctx.obj
    settings = invocation.settings(
        listen=listen,
        node=node,
        insecure=insecure or None,
        upload_limit=upload_limit,
        download_limit=download_limit,
        metrics=metrics,
        hf_endpoint=hf_endpoint,
    )
    home = invocation.find_home(settings)
    tell = invocation.output.message
    started = ensure_agent(home, settings, verbose=invocation.verbose, patience=START_PATIENCE, tell=tell)
    status = AgentClient(home).status()
    if not started:
        for text in differences(status.get("process"), surroundings()):
            invocation.output.message(f"note: {text}")
        raise AgentRunning(home=home.root, pid=status["pid"])
    invocation.output.message("started an agent in the background; 'mooncake node stop' ends it")
    invocation.warn_of(status)
    _show(invocation.output, status)


def stop(ctx: typer.Context) -> None:
    """End the agent.

    It withdraws from the metadata server and keeps what it knows: started again, it serves again. An embedded etcd
    that a killed agent left behind is ended too. Ends with 0 where there is nothing to end.
    """
    invocation: Invocation = ctx.obj
    began = time.monotonic()
    lines = []
    try:
        stopped = stop_agent(invocation.find_home())
    except AgentNotRunning as error:
        stopped = Stopped(pid=None)
        lines.append(printable(f"nothing to end: {error}"))
    seconds = round(time.monotonic() - began, 3)
    if stopped.pid is not None:
        how = " with SIGTERM, since it did not answer" if stopped.terminated else ""
        lines.append(f"ended the agent (pid {stopped.pid}) in {format_seconds(seconds)}{how}")
    if stopped.jobs:
        short = f"{counted(len(stopped.jobs), 'job')} cut short ({', '.join(map(str, stopped.jobs))})"
        lines.append(
            f"{short}: what came is kept, and 'mooncake jobs show', once an agent runs again, says how to resume"
        )
    if stopped.etcd_pid is not None:
        lines.append(f"ended the etcd that a dead agent had left behind (pid {stopped.etcd_pid})")
    document = {
        "pid": stopped.pid,
        "terminated": stopped.terminated,
        "etcd_pid": stopped.etcd_pid,
        "jobs": stopped.jobs,
        "seconds": seconds,
    }
    invocation.output.done(document, human="\n".join(lines))


def limit(
    ctx: typer.Context,
    upload: Annotated[str | None, typer.Option("--upload", metavar="RATE", help="Send no more.")] = None,
    download: Annotated[
        str | None, typer.Option("--download", metavar="RATE", help="Receive no more a second.")
    ] = None,
) -> None:
    """Limit what the running agent sends and receives.

    RATE is like 500MB/s or 5Gbit, 0 for none. It holds until the agent ends; without options, what holds now is shown.
    """
    invocation: Invocation = ctx.obj
    rates = [_rate(option, text) for option, text in (("--upload", upload), ("--download", download))]
    now = AgentClient(invocation.find_home()).limits(*rates)
    lines = [f"{way:<9} {format_size(now[way]) + '/s' if now[way] else 'no limit'}\n" for way in ("upload", "download")]
    invocation.output.data(now, human="".join(lines), quiet=[str(now["upload"]), str(now["download"])])


def _rate(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else parse_rate(text)
    except ValueError as error:
        raise UsageError(detail=f"{option}: {error}") from None


def status(ctx: typer.Context) -> None:
    """Show what the agent is and does.

    Ends with status 3 when none runs, and says why when the last one could not go on. Ends with 0 while one runs, even
    if a part of it has failed: FAILED then says what, when and how often, and --json has it under 'tasks'. For a status
    that tells whether all is well, run 'mooncake doctor'. METADATA is what other nodes are given with --metadata.
    """
    invocation: Invocation = ctx.obj
    home = invocation.find_home()
    try:
        answer = AgentClient(home).status()
    except AgentNotRunning:
        pid = left_behind(home)
        if pid is not None:
            text = (
                f"an etcd of a dead agent still runs (pid {pid}); 'mooncake node stop' ends it, a new agent adopts it"
            )
            invocation.output.message(text)
        raise
    older = _superseded(AgentClient(home))
    _show(invocation.output, {**answer, **({} if older is None else {"superseded": older})})


def _superseded(client: AgentClient) -> list[dict[str, Any]] | None:
    """What the node holds of earlier versions; None where that cannot be said now, or the agent is an earlier one."""
    try:
        return client.superseded()
    except MooncakeError:
        return None


def logs(
    ctx: typer.Context,
    lines: Annotated[int, typer.Option("-n", "--lines", metavar="N", min=0, help="Lines to show [default: 50].")] = 50,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as the log grows; Ctrl-C ends.")] = False,
) -> None:
    """Show the log of the background agent."""
    invocation: Invocation = ctx.obj
    output = invocation.output
    path = invocation.find_home().log
    if not path.exists():
        raise PathNotFound(path=path)
    tail, position = last_lines(path, lines)
    shown = [printable(line) for line in tail]
    output.data({"path": str(path), "lines": shown}, human="".join(f"{line}\n" for line in shown), quiet=shown)
    if follow:
        for line in follow_log(path, position, output.still_read):
            output.record({"line": printable(line)}, printable(line))


def _show(output: Output, status: Mapping[str, Any]) -> None:
    output.data(status, human=_report(output, status) if output.mode == "human" else "", quiet=[str(status["pid"])])


def _job(job: Mapping[str, Any]) -> str:
    return f"{job['id']}: {printable(job['name'])} to {printable(job['dest'])}: {how_far(job)}"


def _report(output: Output, status: Mapping[str, Any]) -> str:
    trouble = "" if status.get("metadata_ok", True) else "  (does not answer now; it is tried again)"
    serving = f"{counted(status['objects'], 'object')}, {format_size(status.get('serving_bytes', 0))}"
    gets, waiting = status.get("gets", 0), status.get("gets_waiting", 0)
    busy = f"; {counted(gets, 'get')} running" + (f", {waiting} waiting" if waiting else "") if gets else ""
    jobs = status.get("jobs", [])
    more = f"and {len(jobs) - SHOWN_JOBS} more: 'mooncake jobs' lists them" if len(jobs) > SHOWN_JOBS else ""
    rows = [
        ("node", printable(status["node"])),
        ("pid", f"{status['pid']}, up {format_seconds(status.get('uptime', 0))}"),
        ("home", printable(status["home"])),
        ("metadata", printable(status["metadata"]) + trouble),
        ("control", printable(status["control"])),
        ("data", printable(status["data"])),
        ("serving", serving + busy),
        *([("quota", f"{format_size(status['cache_quota'])} for replicas")] if status.get("cache_quota") else []),
        *(("getting", _getting(get)) for get in status.get("running_gets", [])),
        *(
            (way, f"at most {format_size(rate)}/s")
            for way in ("upload", "download")
            if (rate := status.get(f"{way}_limit"))
        ),
        *([("metrics", printable(status["metrics"]))] if status.get("metrics") else []),
        *((("hf endpoint", status["hf_endpoint"]),) if status.get("hf_endpoint") else ()),
        *(("job", _job(job)) for job in jobs[:SHOWN_JOBS]),
        *([("jobs", output.commands(more))] if more else []),
        *(
            ("superseded", f"{printable(old['path'])}: {printable(old['name'])} stands for other content by now")
            for old in status.get("superseded", [])[:SHOWN_SUPERSEDED]
        ),
        *(("warning", printable(text)) for text in status.get("warnings", [])),
        *(("failed", printable(what_failed(task))) for task in status.get("tasks", []) if task["failures"]),
    ]
    return output.fields(rows)


def _getting(get: Mapping[str, Any]) -> str:
    """One get, as people read it: what, how far, from how many, and where it goes."""
    done = f" {get['percent']:g} %" if get["percent"] is not None else ""
    peers = f" from {counted(get['peers'], 'peer')}" if get["peers"] else ""
    since = format_seconds(get["seconds"])
    return printable(f"{get['name']} to {get['dest']}: {get['step']}{done}{peers}, for {since}")
