"""``mooncake info``: one object, its files, and who holds how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column, Output
from mooncake_cli.text import age, counted, printable, short_digest
from mooncake_cli.wanted import Outcomes, is_pattern, meant
from p2pstore.errors import MooncakeError
from p2pstore.objects.reference import ALGORITHM, parse_reference
from p2pstore.objects.units import format_size

EXAMPLES = {
    "info": (
        "mooncake info models/llama-3",
        "mooncake info models/llama-3@sha256:3f786850e387",
        "mooncake info models/llama-3 --json | jq .replicas",
        "mooncake info models/ --json | jq '.objects[].name'",
    )
}

SHOWN_FILES = 20
"""Files that are listed without ``--verbose``."""

FILES = (Column("FILE"), Column("SIZE", right=True), Column("CHUNKS", right=True))
REPLICAS = (
    Column("NODE", style="bold"),
    Column("ROLE"),
    Column("HOLDS", right=True),
    Column("OF", right=True),
    Column("SHARE", right=True),
    Column("ADDRESS"),
    Column("ANSWERS"),
)


def info(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="An object; NAME:TAG or NAME@DIGEST, a version; or a pattern, or prefix/, of names."
        ),
    ],
) -> None:
    """Show an object's files, and who holds how much.

    HOLDS counts chunks; a node serves each as soon as it is verified. Every file is listed with --verbose.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    for name in names:
        if not is_pattern(name):
            parse_reference(name)
    client = invocation.client()
    if len(names) == 1 and not is_pattern(names[0]):
        answer = client.info(names[0])
        human = _report(output, answer) if output.mode == "human" else ""
        output.data(answer, human=human, quiet=[answer["manifest"]])
        return
    outcomes = Outcomes()
    for name in meant(client, names):
        try:
            outcomes.done.append(client.info(name))
        except MooncakeError as error:
            outcomes.fails(name, error)
    human = "\n".join(_report(output, answer) for answer in outcomes.done) if output.mode == "human" else ""
    outcomes.end(output, [answer["manifest"] for answer in outcomes.done], human)


def _report(output: Output, answer: Mapping[str, Any]) -> str:
    head = output.fields(
        [
            ("name", printable(answer["name"])),
            ("manifest", f"{ALGORITHM}:{printable(answer['manifest'])}"),
            *([("tags", printable(", ".join(answer["tags"])))] if answer.get("tags") else []),
            ("size", f"{format_size(answer['size'])} ({counted(answer['size'], 'byte')})"),
            ("chunks", f"{answer['chunks']:,} of {format_size(answer['chunk_size'])}, {printable(answer['hash'])}"),
            ("created", f"{age(answer['created'])} by {printable(answer['creator'])}"),
            *(("here", f"{printable(copy['path'])} ({printable(copy['role'])})") for copy in answer.get("here", [])),
        ]
    )
    head += _versions(answer)
    report = f"{head}\n{_files(output, answer['files'])}\n{_replicas(output, answer['replicas'])}"
    for banned in answer["banned"]:
        who, chunk = printable(banned["node"]), banned["chunk"]
        report += f"\n{who} sent wrong bytes for chunk {chunk} to this node, and is banned"
    return report


def _versions(answer: Mapping[str, Any]) -> str:
    """What is to be known of other versions; each line ends with a line break."""
    name = printable(answer["name"])
    lines = []
    if answer.get("superseded"):
        lines.append(f"superseded: {name} is {ALGORITHM}:{short_digest(answer['current'])} now")
    for older in answer.get("older", ()):
        if older["manifest"] != answer["manifest"]:
            holders = counted(len(older["holders"]), "node")
            tags = f" ({', '.join(map(printable, older['tags']))})" if older["tags"] else ""
            lines.append(f"superseded: {ALGORITHM}:{short_digest(older['manifest'])}{tags}, still held by {holders}")
    return "".join(f"{line}\n" for line in lines)


def _files(output: Output, files: list[dict[str, Any]] | None) -> str:
    if files is None:
        return "its files are unknown: no holder sends the manifest\n"
    shown = files if output.verbose else files[:SHOWN_FILES]
    rows = [(printable(file["path"]), format_size(file["size"]), f"{file['chunks']:,}") for file in shown]
    left = len(files) - len(shown)
    more = f"... and {counted(left, 'more file')} (--verbose lists all)\n" if left else ""
    return output.table(FILES, rows) + more


def _replicas(output: Output, replicas: list[dict[str, Any]]) -> str:
    if not replicas:
        return "nobody holds it now\n"
    rows = []
    for replica in replicas:
        share = 100 if replica["state"] == "complete" else 100 * replica["chunks"] // max(replica["of"], 1)
        rows.append(
            (
                printable(replica["node"]),
                printable(replica["role"]),
                f"{replica['chunks']:,}",
                f"{replica['of']:,}",
                f"{share} %",
                printable(replica["address"]),
                "yes" if replica["reachable"] else "no",
            )
        )
    return output.table(REPLICAS, rows)
