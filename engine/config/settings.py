"""The engine's settings, from upstream's own sources: ``MC_*`` variables, its programs' variables, ``mooncake.json``.

A variable wins over the file, and that over the default. ``engine.config.variables`` says what each means.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from engine.config import mooncake_json
from engine.config.layers import DEFAULT_ORIGIN, Layers, absolute, current_directory, of_variable, shown, understood
from engine.config.mooncake_json import MooncakeJson
from engine.config.trust import NotObeyed
from engine.config.variables import CONFIG_PATH, PROGRAM_VARIABLES, VARIABLES, Variable
from engine.errors import BadConfig
from engine.protocol.wire import LATEST_VERSION

SECRETS = frozenset({"redis_password"})
"""Settings whose value is not shown."""


@dataclass(frozen=True)
class EngineSettings:
    """Every setting; None where nobody said anything and there is no default. ``origins``: where each value came from.

    ``metadata_server`` has its scheme, or is ``P2PHANDSHAKE``. ``local_hostname`` may have a port. Timeouts are in
    seconds, ``slice_size`` in bytes.
    """

    local_hostname: str | None = None
    metadata_server: str | None = None
    protocol: str | None = None
    device_name: str | None = None
    advertise: str | None = None
    min_port: int | None = None
    max_port: int | None = None
    lanes: int = 4
    slice_size: int = 1 << 20
    retries: int = 9
    connect_timeout: float = 5.0
    stall_timeout: float = 30.0
    protocol_version: int = LATEST_VERSION
    cluster: str = ""
    redis_username: str | None = None
    redis_password: str | None = field(default=None, repr=False)
    redis_db: int = 0
    force_tcp: bool = False
    topology_file: Path | None = None
    ib_port: int = 1
    gid_index: int | None = None
    pkey_index: int = 0
    mtu: int = 4096
    traffic_class: int = 0
    service_level: int = 0
    queue_pairs: int = 2
    queue_depth: int = 256
    log_level: str | None = None
    file: MooncakeJson | None = None
    origins: Mapping[str, str] = field(default_factory=dict, repr=False)
    ignored: tuple[tuple[str, str], ...] = ()

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, *, cwd: Path | None = None) -> EngineSettings:
        """Gather them; relative paths start from ``cwd``. Raises ``BadConfig``, which names variable or file."""
        environ = os.environ if environ is None else environ
        base = cwd or current_directory()
        layers = Layers()
        found, ignored = _file(environ, base)
        if found is not None:
            for name in ("local_hostname", "protocol", "device_name", "metadata_server"):
                value = found.metadata_url if name == "metadata_server" else getattr(found, name)
                if value:
                    layers.put(name, f"{found.file}, {name}", value)
        for variable in (*PROGRAM_VARIABLES, *VARIABLES):
            text = environ.get(variable.name)
            if variable.field and text:
                layers.take(variable.field, of_variable(variable.name), partial(_read, variable, text, base))
        if "metadata_server" in layers.values:
            layers.values["metadata_server"] = mooncake_json.with_scheme(layers.values["metadata_server"])
        settings = cls(file=found, origins=layers.origins, ignored=ignored, **layers.values)
        _check_ports(settings)
        return settings

    @property
    def ports(self) -> range | None:
        """The ports to listen on; None for any. One bound alone takes upstream's default for the other."""
        if self.min_port is None and self.max_port is None:
            return None
        low = self.min_port if self.min_port is not None else min(DEFAULT_PORTS[0], self.max_port or DEFAULT_PORTS[0])
        high = self.max_port if self.max_port is not None else max(DEFAULT_PORTS[1], low)
        return range(low, high + 1)

    def shown(self) -> list[tuple[str, str | int | float | bool | None, str]]:
        """Name, value and origin of every setting; of a password it is only said that it is set."""
        rows: list[tuple[str, str | int | float | bool | None, str]] = []
        for each in fields(self):
            if each.name not in {"file", "origins", "ignored"}:
                value = shown(getattr(self, each.name), secret=each.name in SECRETS)
                rows.append((each.name, value, self.origins.get(each.name, DEFAULT_ORIGIN)))
        return rows


DEFAULT_PORTS = (15000, 17000)
"""Upstream's bounds of the ports, which count here once one of the two is set."""


def _file(environ: Mapping[str, str], base: Path) -> tuple[MooncakeJson | None, tuple[tuple[str, str], ...]]:
    """The file that is named, if any, or that it is not obeyed, and why: others than us might have written it."""
    if not environ.get(CONFIG_PATH):
        return None, ()
    file = understood(partial(absolute, environ[CONFIG_PATH], base), of_variable(CONFIG_PATH))
    try:
        return mooncake_json.read(file), ()
    except NotObeyed as error:
        return None, ((str(file), str(error)),)


def _read(variable: Variable, text: str, base: Path) -> Any:
    value = variable.parse(text)
    return absolute(text, base) if isinstance(value, Path) else value


def _check_ports(settings: EngineSettings) -> None:
    if settings.ports is not None and not settings.ports:
        origin = settings.origins.get("max_port") or settings.origins["min_port"]
        detail = f"there is no port between {settings.ports.start} and {settings.ports.stop - 1}"
        raise BadConfig(origin=origin, detail=detail)
