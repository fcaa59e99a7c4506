"""``mooncake config``: the settings."""

from __future__ import annotations

from typing import Annotated

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column
from mooncake_cli.text import printable

Value = str | int | float | bool | None

EXAMPLES = {"show": ("mooncake config show", "mooncake config show --origin")}


def show(
    ctx: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
) -> None:
    """Show every setting.

    An option wins over the environment (MOONCAKE_KEY, then Mooncake's own MC_ variables), that over ./mooncake.toml,
    that over the user's config.toml (or --config FILE), that over /etc/mooncake/config.toml, that over the
    mooncake.json that MOONCAKE_CONFIG_PATH names. What begins with "engine." comes from Mooncake's own sources alone.
    Of secrets it is only said that they are set.
    """
    from engine.config.settings import EngineSettings  # noqa: PLC0415 - no other command needs all of them

    invocation: Invocation = ctx.obj
    output = invocation.output
    settings = invocation.settings()
    rows: list[tuple[str, Value, str]] = [
        *settings.shown(),
        *((f"engine.{name}", value, source) for name, value, source in EngineSettings.load().shown()),
    ]
    if origin:
        rows += [(what, "ignored", why) for what, why in settings.ignored]
        document: dict[str, object] = {key: {"value": value, "origin": source} for key, value, source in rows}
    else:
        document = {key: value for key, value, _ in rows}
    human = ""
    if output.mode == "human":
        texts = [(key, _shown(value), printable(source)) for key, value, source in rows]
        columns = (Column("KEY", style="bold"), Column("VALUE"), Column("FROM"))
        human = output.table(columns, texts) if origin else output.table(columns[:2], [row[:2] for row in texts])
    output.data(document, human=human, quiet=(f"{key}={_shown(value)}" for key, value, _ in rows if value is not None))


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "-" if value is None else printable(value)
