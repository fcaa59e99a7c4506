"""``mooncake get``: bring an object to this machine."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from engine.net.addresses import is_ip
from mooncake_cli import EXIT_INTERRUPTED
from mooncake_cli.attempts import Attempts
from mooncake_cli.destinations import STANDARD_OUTPUT, destination, place_of, places_of
from mooncake_cli.gets import report, tell
from mooncake_cli.invocation import Invocation
from mooncake_cli.text import printable
from mooncake_cli.wanted import Outcomes, is_pattern
from mooncake_cli.wanted import meant as names_meant
from p2pstore.agent.client import AgentClient
from p2pstore.agent.patience import Patience
from p2pstore.errors import MooncakeError, UsageError
from p2pstore.objects.chosen import parse_range
from p2pstore.objects.names import check_node_name, path_fault
from p2pstore.objects.reference import is_reference, parse_reference
from p2pstore.settings.keys import parse_address
from p2pstore.settings.master_keys import parse_duration

FOR_EVER = "for-ever"
OPTIONAL = {"get": {"--wait": FOR_EVER}}

EXAMPLES = {
    "get": (
        "mooncake get models/llama-3 /data/llama-3",
        "mooncake get models/llama-3 /data/                      # to /data/llama-3",
        "mooncake get models/llama-3 /data/ --dry-run",
        "mooncake get models/llama-3 /data/llama-3 --update      # what lies there is an earlier version of it",
        "mooncake get models/llama-3@sha256:3f786850e387 /data/  # that version, by the beginning of its digest",
        "mooncake get models/llama-3:step-1000 /data/            # the one that has this tag",
        "mooncake get data.tar . --peer 10.0.0.5:7300",
        "mooncake get models/llama-3 /data/ --wait=30m --retries 3",
        "mooncake get 'datasets/*' /data/                       # several, each inside",
        "mooncake get models/llama-3 /data/ --background --wait  # as a job of the agent: see 'mooncake jobs'",
        "mooncake get data.tar - | tar x",
        "mooncake get models/llama-3/config.json .              # one file, or directory, of the object",
        "mooncake get models/llama-3 /data/first --include '*.json' --include 'model-00001-of-*'",
        "mooncake get models/llama-3/model-00001-of-00008.safetensors /tmp/head --range 0-4095",
        "mooncake get models/llama-3 /data/first --tensors 'model.layers.0.*' --tensors 'model.layers.1.*'",
    )
}


def get(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME...",
            help="An object; NAME:TAG or NAME@DIGEST, a version; NAME/PATH, a file in it; or a pattern of names.",
        ),
    ] = None,
    dest: Annotated[
        str,
        typer.Argument(
            metavar="DEST", help="Where it goes; inside DEST if that ends in '/', or is '.'; '-' is standard output."
        ),
    ] = "",
    transport: Annotated[
        str | None, typer.Option("--transport", metavar="WAY", help="auto, rdma, tcp or local [default: auto].")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", metavar="PEER", help="Ask this node (HOST:PORT, or a name) too, or alone without etcd."),
    ] = None,
    tensors: Annotated[
        list[str] | None,
        typer.Option("--tensors", metavar="GLOB", help="Only tensors of safetensors files whose names fit this."),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include", metavar="PATTERN", help="Only files that fit this, as in a .gitignore. May be repeated."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="Not what fits this. May be repeated; it wins."),
    ] = None,
    byte_range: Annotated[
        str | None,
        typer.Option("--range", metavar="RANGE", help="Only these bytes of a file: FIRST-LAST, FIRST- or -COUNT."),
    ] = None,
    wait: Annotated[
        str | None,
        typer.Option(
            "--wait",
            metavar="[=TIME]",
            help="Wait, so long or for ever, for an object that is not there yet, and for sources to come back.",
        ),
    ] = None,
    retries: Annotated[
        int, typer.Option("--retries", metavar="N", min=0, help="Try again so often when a peer or etcd fails.")
    ] = 0,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="TIME", help="Take no longer than this, like 90s, 10m or 2h.")
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", help="Have the agent do it, and end at once: see 'mooncake jobs'.")
    ] = False,
    no_seed: Annotated[bool, typer.Option("--no-seed", help="Do not serve the object afterwards.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be pulled, and write nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file at DEST, or a directory that is an earlier version.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Replace another version of the object at DEST, and nothing else.")
    ] = False,
    wipe: Annotated[
        bool, typer.Option("--wipe", help="Delete whatever is in the directory DEST, and replace it.")
    ] = False,
) -> None:
    """Bring an object to this machine, verified.

    Every chunk is checked before it counts. What is interrupted resumes with the same command. This node serves the
    object meanwhile and afterwards. Starts an agent when none runs.

    NAME:TAG and NAME@DIGEST are versions of the object, also where the name stands for another by now. NAME may go on
    with the path of a file or a directory in the object, which then is what DEST is. With --include and --exclude DEST
    is a directory with those files of it, and with --range a file with those bytes. Only chunks that
    have any of it are brought. With --tensors, DEST is a safetensors file, or a directory of them, with just those
    tensors, under the names that the files have in the object. Whole files are served, by later
    agents too, until 'mooncake unregister NAME'; ranges and tensors are not.

    With --update, another version of the object at DEST is replaced when the new one is whole, and only what changed is
    brought. It is one if this node serves it from there and no file changed, or if all of it hashes to a known version.

    Several objects go into DEST/, one after the other: 'models/' are all whose names begin so, and in a pattern '*'
    stops at a '/'. With --wait the get begins when the object is there; TIME, like --wait=10m, counts without a byte.

    With --background each object is a job of the agent's, which goes on when this command has ended: 'mooncake jobs'
    lists them, 'mooncake jobs wait ID' ends as the get does. Without --wait or --retries
    there is no job for a name that means nothing. A job ends with the agent; the same get then resumes.

    With '-' a file is written to standard output in order, each byte verified before, and the result to standard error.
    """
    invocation: Invocation = ctx.obj
    settings = invocation.settings(transport=transport)
    if not names:
        raise UsageError(detail="NAME or DEST is missing, as in 'mooncake get NAME DEST'")
    for name in names:
        if not is_pattern(name):
            _check_name(name)
    if byte_range is not None:
        _check_range(byte_range)
    limit = math.inf if timeout is None else _limit(timeout)
    waiting = 0.0 if wait is None else math.inf if wait == FOR_EVER else _time("--wait", wait)
    destination(names[0].rstrip("/"), dest)  # refuses an empty one
    how = {
        "transport": settings.transport,
        "peers": [_peer(text) for text in peer or []],
        "seed": not no_seed,
        "dry_run": dry_run,
        "force": force,
        "wipe": wipe,
        "update": update,
        "tensors": tensors or [],
        "include": include or [],
        "exclude": exclude or [],
        "byte_range": byte_range or "",
    }
    _check_fit(how, dest, background=background)
    client = invocation.client_of_started(settings)
    attempts = Attempts(invocation.output, lambda: Patience(waiting, retries), limit)
    if background:
        _in_background(attempts, client, names, dest, {**how, "wait": waiting, "retries": retries, "timeout": limit})
        return
    try:
        _bring(attempts, client, names, dest, how)
    except KeyboardInterrupt:
        again = shlex.join(["mooncake", *invocation.arguments])
        resume = "begin anew" if dest == STANDARD_OUTPUT else "resume"
        text = f"interrupted; run the same command again to {resume}: {printable(again)}"
        invocation.output.plain_error("Interrupted", text, EXIT_INTERRUPTED)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _bring(attempts: Attempts, client: AgentClient, names: list[str], dest: str, how: dict[str, Any]) -> None:
    """Bring what is asked for, and say what came of it."""
    if dest == STANDARD_OUTPUT:
        _stream(attempts, client, names, how)
    elif len(names) == 1 and not is_pattern(names[0]):
        tell(attempts.output, _one(attempts, client, names[0], dest, how), how["byte_range"])
    else:
        _several(attempts, client, names, dest, how)


def _check_fit(how: Mapping[str, Any], dest: str, *, background: bool) -> None:
    """Raise ``UsageError`` for options that make no sense of one another, or of standard output."""
    for option in ("force", "wipe", "tensors", "include", "exclude", "byte_range"):
        if how["update"] and how[option]:
            given = "range" if option == "byte_range" else option
            raise UsageError(detail=f"--update replaces one version by another, as a whole: it takes no --{given}")
    if background and how["dry_run"]:
        raise UsageError(detail="a dry run is over at once: --background makes no sense of it")
    if dest != STANDARD_OUTPUT:
        return
    if background:
        raise UsageError(detail="--background is for files, and '-' is the standard output of this command")
    for option in ("dry_run", "force", "wipe", "update", "tensors", "include", "exclude"):
        if how[option]:
            raise UsageError(detail=f"--{option.replace('_', '-')} is for files, and '-' is standard output")
    if sys.stdout.isatty():
        raise UsageError(
            detail="standard output is a terminal: '-' is for a pipe or a file; './-' is a file of that name"
        )


def _stream(attempts: Attempts, client: AgentClient, names: list[str], how: Mapping[str, Any]) -> None:
    """Write files to standard output, one after the other; what is told of them goes to standard error."""
    options = {key: how[key] for key in ("transport", "peers", "byte_range")}
    for name in attempts.call(lambda: names_meant(client, names), names[0]):
        result = attempts.follow(lambda name=name: client.stream(name, **options), name, "pulling")  # type: ignore[misc]
        attempts.output.beside(result, human=report(result, how["byte_range"]))


def _one(attempts: Attempts, client: AgentClient, name: str, dest: str, how: Mapping[str, Any]) -> dict[str, Any]:
    """Bring one object; the result."""
    path = place_of(client.tags, name, dest)
    return attempts.follow(lambda: client.get(name, path, **how), name, "pulling")


def _several(attempts: Attempts, client: AgentClient, names: list[str], dest: str, how: Mapping[str, Any]) -> None:
    """Bring several objects, one after the other; what became of them is the result."""
    outcomes = Outcomes()
    for name in places_of(client.tags, attempts.call(lambda: names_meant(client, names), names[0]), dest).values():
        try:
            result = _one(attempts, client, name, dest, how)
        except MooncakeError as error:
            outcomes.fails(name, error)
            continue
        outcomes.done.append(result)
        if attempts.output.mode == "human":
            tell(attempts.output, result, how["byte_range"])
    outcomes.end(attempts.output, [result["dest"] for result in outcomes.done])


def _in_background(attempts: Attempts, client: AgentClient, names: list[str], dest: str, how: dict[str, Any]) -> None:
    """Have the agent bring them; the jobs are the result."""
    output = attempts.output
    several = len(names) > 1 or is_pattern(names[0])
    found = attempts.call(lambda: names_meant(client, names), names[0]) if several else [names[0]]
    outcomes = Outcomes()
    for place, name in places_of(client.tags, found, dest).items():
        try:
            job = client.begin_job(name, place, **how)
        except MooncakeError as error:
            if not several:
                raise
            outcomes.fails(name, error)
            continue
        outcomes.done.append(job)
        number = job["id"]
        human = (
            f"job {number} gets {printable(name)} to {printable(place)}\n"
            f"'mooncake jobs wait {number}' waits for it, 'mooncake jobs' lists all"
        )
        if not several:
            output.done(job, human=human, quiet=[str(number)])
            return
        if output.mode == "human":
            output.message(human.partition("\n")[0])
    outcomes.end(output, [str(job["id"]) for job in outcomes.done])


def _time(option: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(detail=f"{option}: {error}") from None


def _limit(text: str) -> float:
    seconds = _time("--timeout", text)
    if not seconds:
        raise UsageError(detail=f"--timeout: nothing comes in {text.strip()}; leave it out to set no limit")
    return seconds


def _check_name(text: str) -> None:
    """Raise ``BadName`` or ``UsageError`` for what is no name, and no name with a path in the object."""
    if is_reference(text.rstrip("/")):
        return
    name, _, path = text.partition("/")
    parse_reference(name)
    fault = path_fault(path.rstrip("/")) if path.rstrip("/") else ""
    if fault:
        raise UsageError(detail=f"the path in {printable(text)} {fault}")


def _check_range(text: str) -> None:
    try:
        parse_range(text)
    except ValueError as error:
        raise UsageError(detail=f"--range: {error}") from None


def _peer(text: str) -> str:
    """What the agent is asked for: an address with its port, or a node's name."""
    try:
        host, port = parse_address(text)
        if not port and not is_ip(host):
            return check_node_name(text)
    except ValueError as error:
        raise UsageError(detail=f"--peer: {error}") from None
    if not port:
        raise UsageError(detail=f"--peer: {text!r} has no port; write HOST:PORT, or a node's name")
    return text
