"""``mooncake jobs``: gets in the background."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mooncake_cli import EXIT_INTERRUPTED
from mooncake_cli.calls import follow
from mooncake_cli.gets import tell
from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column
from mooncake_cli.text import age, counted, printable
from p2pstore.errors import UsageError, from_wire
from p2pstore.objects.units import format_seconds, format_size

EXAMPLES = {
    "list_jobs": (
        "mooncake jobs",
        "mooncake jobs --json | jq '.jobs[] | select(.state == \"failed\")'",
    ),
    "show": ("mooncake jobs show 3",),
    "wait": (
        "mooncake jobs wait 3",
        "mooncake jobs wait 3 --json    # the result that get has",
    ),
    "cancel": ("mooncake jobs cancel 3",),
}

COLUMNS = (
    Column("ID", right=True, style="bold"),
    Column("STATE"),
    Column("OBJECT"),
    Column("DEST"),
    Column("BEGAN"),
    Column("PROGRESS"),
)

Number = Annotated[str, typer.Argument(metavar="ID", help="The number that 'get --background' told.")]


def list_jobs(ctx: typer.Context) -> None:
    """List the gets in the background.

    'mooncake get --background' begins them; plain 'mooncake jobs' lists them, too. A job is running, done, failed,
    cancelled, or cut: by the end of the agent. Those that have ended are remembered for a week, the last hundred of
    them, also by the next agent.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    jobs = invocation.client().jobs()
    if not jobs:
        output.message("no jobs; 'mooncake get NAME DEST --background' begins one")
    rows = [
        (
            str(job["id"]),
            job["state"],
            printable(job["name"]),
            printable(job["dest"]),
            age(job["began"]),
            how_far(job),
        )
        for job in jobs
    ]
    human = output.table(COLUMNS, rows) if rows and output.mode == "human" else ""
    output.data({"jobs": jobs}, human=human, quiet=[str(job["id"]) for job in jobs])


def show(ctx: typer.Context, number: Number) -> None:
    """Show one job: how far it is, or how it ended.

    Ends with 0 whatever became of the job; 'wait' has the get's own status.
    """
    invocation: Invocation = ctx.obj
    job = invocation.client().job(_id(number))
    rows = [
        ("job", f"{job['id']}, {job['state']}"),
        ("object", printable(job["name"])),
        ("dest", printable(job["dest"])),
        ("began", age(job["began"])),
        *([("ended", age(job["ended"]))] if job["ended"] is not None else []),
        ("progress", how_far(job)),
        *(("note", printable(note)) for note in job["notes"]),
    ]
    if job["error"] is not None:
        hint = invocation.output.commands(from_wire(job["error"]).hint)
        rows += [("status", str(job["exit_code"])), *([("hint", printable(hint))] if hint else [])]
        rows.append(("again", printable(again(job, invocation.home))))
    invocation.output.data(job, human=invocation.output.fields(rows), quiet=[job["state"]])


def wait(ctx: typer.Context, number: Number) -> None:
    """Wait for a job's end, and end as its get does.

    That is with its result, or its error, and its exit status. Ctrl-C ends the waiting; the job goes on.
    """
    invocation: Invocation = ctx.obj
    asked = _id(number)
    try:
        result = follow(invocation.output, invocation.client().wait_for_job(asked), "pulling")
    except KeyboardInterrupt:
        text = f"job {asked} goes on; 'mooncake jobs wait {asked}' waits again, 'mooncake jobs cancel {asked}' ends it"
        invocation.output.plain_error("Interrupted", invocation.output.commands(text), EXIT_INTERRUPTED)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    tell(invocation.output, result)


def cancel(ctx: typer.Context, number: Number) -> None:
    """End a job.

    What it brought stays beside its destination, and the same get resumes. Returns when nothing of it writes any more.
    One that has ended stays as it is, which is no error.
    """
    invocation: Invocation = ctx.obj
    job = invocation.client().cancel_job(_id(number))
    state = job["state"]
    human = f"job {job['id']} " + ("is cancelled" if state == "cancelled" else f"had ended before: it is {state}")
    invocation.output.done(job, human=human, quiet=[state])


def how_far(job: Mapping[str, Any]) -> str:
    """What a job does, or what came of it."""
    if job["error"] is not None:
        return printable(from_wire(job["error"]))
    if job["result"] is not None:
        pulled, seconds = job["result"]["bytes_pulled"], format_seconds(job["result"]["seconds"])
        return f"{format_size(pulled)} pulled in {seconds}" if pulled else "nothing had to be pulled"
    progress = job["progress"]
    done, total, unit = progress.get("done", 0), progress.get("total", 0), progress.get("unit", "B")
    text = printable(progress.get("step", "pulling"))
    if total:
        whole = format_size(total) if unit == "B" else f"{total:,} {printable(unit)}"
        text += f" {100 * done // total}% of {whole}"
    if progress.get("peers"):
        text += f" from {counted(progress['peers'], 'peer')}"
    return text


def again(job: Mapping[str, Any], home: str | None) -> str:
    """The command that makes the same get, in the foreground."""
    asked = job["asked"]
    words = ["mooncake", *(["--home", home] if home else []), "get"]
    for option in ("force", "wipe", "update"):
        words += [f"--{option}"] if asked.get(option) else []
    words += [] if asked.get("seed", True) else ["--no-seed"]
    for option, key in (("peer", "peers"), ("tensors", "tensors"), ("include", "include"), ("exclude", "exclude")):
        for value in asked.get(key) or ():
            words.append(f"--{option}={value}")
    for option in ("range", "transport"):
        if asked.get(option) not in {None, "auto", ""}:
            words.append(f"--{option}={asked[option]}")
    return shlex.join([*words, "--", job["name"], job["dest"]])


def _id(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(detail=f"{printable(text)!r} is no job's number; 'mooncake jobs' lists them")
    return int(text)
