"""``mooncake unregister``: withdraw what this node holds."""

from __future__ import annotations

from typing import Annotated

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.text import printable
from p2pstore.objects.names import check_object_name

EXAMPLES = {"unregister": ("mooncake unregister models/llama-3",)}

_OTHERS = {
    True: "nobody else holds it: the name is free",
    False: "other nodes still serve it",
    None: "the metadata server cannot be told now; the agent tries again until it is",
}
"""By whether the name went with what was withdrawn."""


def unregister(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the object.")],
) -> None:
    """Withdraw what this node holds of an object.

    The files stay. Other nodes that hold the object go on serving it; the last one to withdraw removes its name.
    """
    invocation: Invocation = ctx.obj
    result = invocation.client().unregister(check_object_name(name))
    lines = [
        f"withdrew the {printable(item['role'])} of {printable(result['name'])} at {printable(item['path'])}"
        for item in result["withdrawn"]
    ]
    if result.get("pending"):
        lines.append(printable(result["pending"]))
    if other := result.get("replaced_by"):
        lines.append(f"the name stands for other content, which {printable(other)} registered, and stays")
    else:
        lines.append(_OTHERS[result["removed"]])
    invocation.output.done(result, human="\n".join(lines), quiet=[result["name"]])
