"""What people are told of a get that is over, or of one that was only tried out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mooncake_cli.destinations import STANDARD_OUTPUT
from mooncake_cli.output import Output
from mooncake_cli.text import counted, printable, short_digest
from p2pstore.objects.units import format_seconds, format_size


def tell(output: Output, result: dict[str, Any], byte_range: str | None = None) -> None:
    """Say what came of one get, of a range of a file where one is given."""
    for node, size in sorted(result["peers"].items(), key=lambda item: -item[1]):
        output.detail(f"{format_size(size):>10} from {printable(node)}")
    human = _dry(result) if result.get("dry_run") else report(result, byte_range)
    output.done(result, human=human, quiet=[result["dest"]])


def report(result: Mapping[str, Any], byte_range: str | None = None) -> str:
    """How much came from how many, and where it is now; one to three lines."""
    what = printable(result["name"])
    if byte_range:
        what = f"bytes {printable(byte_range)} of {what}"
    elif result.get("tensors") is not None:
        what = f"{counted(result['tensors'], 'tensor')} of {what}"
    elif result.get("files") is not None:
        what = f"{counted(result['files'], 'file')} of {what}"
    if not result["bytes_pulled"]:
        number = result.get("files") if result.get("tensors") is None else result["tensors"]
        several = bool(byte_range) or number not in {None, 1}
        head = f"{what} {'are' if several else 'is'} complete{_place(result)}: nothing had to be pulled"
    else:
        seconds = result["seconds"]
        rate = f", {format_size(result['bytes_pulled'] / seconds)}/s" if seconds else ""
        reused = f", {format_size(result['bytes_reused'])} reused" if result["bytes_reused"] else ""
        head = (
            f"got {what}: {format_size(result['bytes_pulled'])} by {result['transport']} from "
            f"{counted(len(result['peers']), 'peer')} in {format_seconds(seconds)}{rate}{reused}\n"
            f"verified{_place(result)}"
        )
    if result.get("replaced"):
        head += f", in place of {short_digest(result['replaced'])}"
    return head + ("; this node serves it now" if result.get("seeding") else "")


def _place(result: Mapping[str, Any]) -> str:
    return " on standard output" if result["dest"] == STANDARD_OUTPUT else f" at {printable(result['dest'])}"


def _dry(result: Mapping[str, Any]) -> str:
    reused = result["bytes_reused"]
    of_tensors = result.get("tensors") is not None
    if of_tensors or result.get("files") is not None:
        number = counted(result["tensors"], "tensor") if of_tensors else counted(result["files"], "file")
        return (
            f"would pull {format_size(result['bytes_pulled'])} for {number} from "
            f"{counted(len(result['peers']), 'peer')}, and write {format_size(result['size'])} "
            f"to {printable(result['dest'])}"
        )
    return (
        f"would pull {format_size(result['size'] - reused)} of {format_size(result['size'])} "
        f"({format_size(reused)} is here already) from {counted(len(result['peers']), 'peer')} "
        f"to {printable(result['dest'])}"
    )
