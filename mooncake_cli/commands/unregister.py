"""``mooncake unregister``: withdraw what this node holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Output
from mooncake_cli.text import counted, printable
from mooncake_cli.wanted import Outcomes, is_pattern, meant
from p2pstore.agent.client import AgentClient
from p2pstore.errors import MooncakeError, NotHeld, UsageError
from p2pstore.objects.reference import parse_reference
from p2pstore.objects.units import format_size

EXAMPLES = {
    "unregister": (
        "mooncake unregister models/llama-3",
        "mooncake unregister models/llama-3@sha256:3f786850e387    # one version of it",
        "mooncake unregister models/llama-3 --delete          # what a get brought here, and its files",
        "mooncake unregister 'models/llama-3-step-*' datasets/    # of a prefix or pattern, what this node holds",
    )
}

_OTHERS = {
    True: "nobody else holds it: the name is free",
    False: "other nodes still serve it",
    None: "the metadata server cannot be told now; the agent tries again until it is",
}
"""By whether the name went with what was withdrawn."""


def unregister(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="An object; NAME:TAG or NAME@DIGEST, a version; or a pattern, or prefix/, of names."
        ),
    ],
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the files, too, if gets of this agent wrote them.")
    ] = False,
    last_copies: Annotated[
        bool, typer.Option("--last-copies", help="With --delete: even what no other node has whole.")
    ] = False,
) -> None:
    """Withdraw what this node holds of an object.

    The files stay, unless --delete: then what a get brought goes, or what was kept of a stream, as long as nobody has
    touched it since; what was registered never does. Other nodes that hold the object go on serving it; the last one to
    withdraw removes its name.
    """
    if last_copies and not delete:
        raise UsageError(detail="--last-copies is for --delete: without it no file goes")
    invocation: Invocation = ctx.obj
    for name in names:
        if not is_pattern(name):
            parse_reference(name)
    client = invocation.client()

    def withdraw(name: str) -> dict[str, Any]:
        if delete:
            return client.unregister_and_delete(name, last_copies=last_copies)
        return client.unregister(name)

    if len(names) == 1 and not is_pattern(names[0]):
        result = withdraw(names[0])
        human = _report(result, client) if invocation.output.mode == "human" else ""
        invocation.output.done(result, human=human, quiet=[result["name"]])
    else:
        _several(invocation.output, client, names, withdraw)


def _several(output: Output, client: AgentClient, names: list[str], withdraw: Callable[[str], dict[str, Any]]) -> None:
    outcomes = Outcomes()
    for name in meant(client, names):
        try:
            outcomes.done.append(withdraw(name))
        except NotHeld as error:
            if name in names:  # of a pattern that is meant which is here
                outcomes.fails(name, error)
        except MooncakeError as error:
            outcomes.fails(name, error)
    if not outcomes.done and not outcomes.failed:
        raise NotHeld(name=names[0])
    if output.mode == "human":
        for result in outcomes.done:
            output.message(_report(result, client))
    outcomes.end(output, [result["name"] for result in outcomes.done])


def _report(result: Mapping[str, Any], client: AgentClient) -> str:
    lines = [
        f"withdrew the {printable(item['role'])} of {printable(result['name'])} at {printable(item['path'])}"
        for item in result["withdrawn"]
    ]
    lines += [
        f"deleted {counted(item['files'], 'file')}, {format_size(item['bytes'])}, at {printable(item['path'])}"
        for item in result.get("deleted", [])
    ]
    if result.get("pending"):
        lines.append(printable(result["pending"]))
    if other := result.get("replaced_by"):
        lines.append(f"the name stands for other content, which {printable(other)} registered, and stays")
    else:
        lines.append((_parts_alone(result, client) if result["removed"] is False else "") or _OTHERS[result["removed"]])
    for tag in result.get("tags", ()):
        tagged = printable(f"{result['name']}:{tag}")
        lines.append(f"the tag {tagged} stays, and nobody holds it now; 'mooncake tag {tagged} --remove' removes it")
    return "\n".join(lines)


def _parts_alone(result: Mapping[str, Any], client: AgentClient) -> str:
    """That those who hold it yet have only parts of it; empty where one has all, or nobody can say."""
    try:
        found = client.objects(result["name"], limit=1)["objects"]  # it sorts before all that begin so
    except MooncakeError:
        return ""
    for each in found:
        if (each["name"], each["manifest"]) == (result["name"], result["manifest"]) and not each["complete"]:
            have = "has" if each["partial"] == 1 else "have"
            return f"no other node has all of it; {counted(each['partial'], 'node')} {have} a part"
    return ""
