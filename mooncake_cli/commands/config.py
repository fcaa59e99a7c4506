"""``mooncake config``: the settings."""

from __future__ import annotations

from typing import Annotated

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column
from mooncake_cli.text import printable

EXAMPLES = {"show": ("mooncake config show", "mooncake config show --origin")}


def show(
    ctx: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
) -> None:
    """Show every setting.

    An option wins over the environment (MOONCAKE_KEY), that over ./mooncake.toml, that over the user's config.toml
    (or --config FILE), that over /etc/mooncake/config.toml. Of secrets it is only said that they are set.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    rows = invocation.settings().shown()
    if origin:
        document: dict[str, object] = {key: {"value": value, "origin": source} for key, value, source in rows}
    else:
        document = {key: value for key, value, _ in rows}
    human = ""
    if output.mode == "human":
        texts = [(key, _shown(value), printable(source)) for key, value, source in rows]
        columns = (Column("KEY", style="bold"), Column("VALUE"), Column("FROM"))
        human = output.table(columns, texts) if origin else output.table(columns[:2], [row[:2] for row in texts])
    output.data(document, human=human, quiet=(f"{key}={_shown(value)}" for key, value, _ in rows if value is not None))


def _shown(value: str | int | bool | None) -> str:  # noqa: FBT001 - a value to show
    if isinstance(value, bool):
        return "true" if value else "false"
    return "-" if value is None else printable(value)
