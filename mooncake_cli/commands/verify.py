"""``mooncake verify``: hash again what this node holds."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from mooncake_cli.calls import follow
from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column, Output
from mooncake_cli.text import counted, printable
from mooncake_cli.wanted import is_pattern, meant
from p2pstore.agent.client import AgentClient
from p2pstore.errors import IntegrityError, MooncakeError, NotHeld, UsageError
from p2pstore.objects.units import format_seconds, format_size

EXAMPLES = {
    "verify": ("mooncake verify models/llama-3", "mooncake verify /data/llama-3", "mooncake verify models/ 'data/*'")
}

BAD = (
    Column("FILE"),
    Column("CHUNK", right=True),
    Column("OFFSET", right=True),
    Column("LENGTH", right=True),
    Column("REASON"),
)


def verify(
    ctx: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME|PATH...",
            help="An object, NAME:TAG, NAME@DIGEST, or the path where it lies here; or a pattern or prefix/ of names.",
        ),
    ],
) -> None:
    """Hash again what this node holds.

    Reads every byte and compares it with the manifest. Ends with status 4 when something differs. What begins with
    '/' or '.' is a path. Of a prefix or pattern, what this node holds is read.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    asked = [target_of(target) for target in targets]
    client = invocation.client()
    if len(asked) == 1 and not _is_pattern(asked[0]):
        _tell(output, follow(output, client.verify(asked[0]), "verifying"))
    else:
        _several(output, client, asked)


def _several(output: Output, client: AgentClient, asked: list[str]) -> None:
    names = [each for target in asked for each in (meant(client, [target]) if _is_pattern(target) else [target])]
    results: list[dict[str, Any]] = []
    faults: list[tuple[str, MooncakeError]] = []
    for name in dict.fromkeys(names):
        try:
            result = follow(output, client.verify(name), "verifying")
        except MooncakeError as error:
            if name in asked or not isinstance(error, NotHeld):  # of a pattern that is meant which is here
                faults.append((name, error))
            continue
        results.append(result)
        _show(output, result)
        if not result["ok"]:
            faults.append((name, _fault(result)))
    if not results and not faults:
        raise NotHeld(name=asked[0])
    bad = [result["name"] for result in results if not result["ok"]]
    failed = [{"name": name, "error": output.wire(fault)} for name, fault in faults]
    output.data({"objects": results, "failed": failed}, quiet=map(printable, bad))
    errors = sorted((fault for _, fault in faults), key=lambda fault: isinstance(fault, IntegrityError))
    for fault in errors[:-1]:
        output.message(printable(str(fault)))
    if errors:
        raise errors[-1]  # the last gives the status: bytes that differ


def _is_pattern(target: str) -> bool:
    return not target.startswith("/") and is_pattern(target)


def _tell(output: Output, result: dict[str, Any]) -> None:
    """Say what came of one. Raises ``IntegrityError``."""
    if output.mode == "human":
        _show(output, result)
    elif result["ok"]:
        output.data(result)
    else:
        output.data(result, quiet=_names(result["bad"]))
    if not result["ok"]:
        raise _fault(result)


def _show(output: Output, result: dict[str, Any]) -> None:
    """For people."""
    if output.mode != "human":
        return
    if result["ok"]:
        human = (
            f"{printable(result['path'])} is {printable(result['name'])}, every byte: {format_size(result['size'])}, "
            f"{counted(result['chunks'], 'chunk')}, in {format_seconds(result['seconds'])}"
        )
        if other := result.get("replaced_by"):
            human += (
                f"\nthe name now stands for other content, which {printable(other)} registered: who gets it, gets that"
            )
        output.message(human)
        return
    bad: list[dict[str, Any]] = result["bad"]
    rows = [
        (
            printable(b["file"]),
            "-" if b["chunk"] is None else str(b["chunk"]),  # what no chunk tells: a file that is too long, say
            str(b["offset"]),
            str(b["length"]),
            printable(b["reason"]),
        )
        for b in bad
    ]
    output.data(result, human=output.table(BAD, rows))


def _fault(result: dict[str, Any]) -> IntegrityError:
    bad = result["bad"]
    chunks = sum(b["chunk"] is not None for b in bad)
    detail = f"{counted(chunks, 'bad chunk')} of {result['chunks']:,}" if chunks else printable(bad[0]["reason"])
    return IntegrityError(path=result["path"], name=result["name"], detail=detail)


def target_of(text: str) -> str:
    """What the agent is asked for: a name as it is, a path made absolute. Raises ``UsageError`` for an empty one."""
    if not text:
        raise UsageError(detail="NAME or PATH is empty; '.' is the current directory")
    is_path = text.startswith(("/", ".", "~"))
    return os.path.abspath(os.path.expanduser(text)) if is_path else text


def _names(bad: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(printable(item["file"]) for item in bad))
