"""Settings: what they are, where each comes from, and which source wins.

A flag wins over the environment (``MOONCAKE_<KEY>``), that over the project file (``mooncake.toml`` in the current
directory, not in its parents), that over the user's file (``$XDG_CONFIG_HOME/mooncake/config.toml``, or the one that
``--config`` or ``MOONCAKE_CONFIG`` names instead), that over ``/etc/mooncake/config.toml``, that over the default.
What Mooncake's own configuration says counts too (``p2pstore.settings.upstream``): its variables below ours and above
the files, its ``mooncake.json`` below the files.

A variable that is set and empty is an error: a script meant to say something by it.

Relative paths in a file are relative to the file; elsewhere to the current directory. A secret's text is taken from the
environment or from a file that a ``*_file`` key names, never from a flag or a configuration file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config.layers import (
    DEFAULT_ORIGIN,
    SECRET_SHOWN,
    Layers,
    absolute,
    current_directory,
    of_variable,
    shown,
    understood,
)
from engine.config.secret_file import read_secret
from p2pstore.errors import BadConfig, NoSuchAddress, UsageError
from p2pstore.settings.files import NEVER_BY_PROJECT, PROJECT_FILE, SYSTEM_FILE, Ignored, read_file, user_file
from p2pstore.settings.key import Key
from p2pstore.settings.keys import KEYS, SECRETS, UPSTREAMS_TOO

if TYPE_CHECKING:
    from p2pstore.settings.upstream import Given


HANDED_ON = "MOONCAKE_ORIGINS"
"""The variable in which a command tells the agent that it starts where the settings in other variables come from."""


@dataclass(frozen=True)
class Settings:
    """Every setting's value. ``origins`` says for each key where the value came from.

    ``config`` is the file that ``--config`` or ``MOONCAKE_CONFIG`` named, or None. ``ignored`` are files, or keys of
    files, that were not obeyed, and why.
    """

    home: Path | None
    metadata: str | None
    node: str | None
    listen: str
    advertise: str | None
    insecure: bool
    secret_file: Path | None
    group: str | None
    zone: str | None
    lease_ttl: int
    transport: str
    rdma_devices: str
    hash: str
    chunk_size: int | None
    keep: Path | None
    hf_endpoint: str | None
    hf_token_file: Path | None
    cache_quota: int
    cache_high: float
    cache_low: float
    hf_upstream: str | None
    connections: int | None
    upload_limit: int
    download_limit: int
    log_size: int
    metrics: str | None
    etcd_user: str | None
    etcd_password_file: Path | None
    etcd_ca: Path | None
    etcd_cert: Path | None
    etcd_key: Path | None
    master: str
    master_admin: str | None
    tenant_id: str
    master_listen: str
    master_metrics: str
    master_insecure: bool
    master_allow: str | None
    master_state: Path | None
    master_lease: float
    master_soft_pin: float
    master_max_soft_pin: float
    master_evict_soft_pinned: bool
    master_watermark: float
    master_eviction_ratio: float
    master_client_ttl: float
    master_put_discard: float
    master_put_release: float
    master_allocation: str
    master_tenants: bool
    master_tenant_quotas: str | None
    master_offload: bool
    master_offload_on_evict: bool
    master_promotion: bool
    master_max_keys: int
    origins: Mapping[str, str] = field(repr=False)
    config: Path | None = None
    given_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    ignored: tuple[Ignored, ...] = ()

    @classmethod
    def load(
        cls,
        flags: Mapping[str, object] | None = None,
        *,
        config: Path | None = None,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        system: Path = SYSTEM_FILE,
    ) -> Settings:
        """Gather the settings. ``flags`` maps keys to values; those that are None were not given.

        Raises:
            BadConfig: an unknown key, a value that is not understood, or a file that cannot be read.
            UsageError: a flag's value that is not understood.
        """
        environ = os.environ if environ is None else environ
        cwd = current_directory() if cwd is None else cwd
        if config is None and "MOONCAKE_CONFIG" in environ:
            config = Path(_not_empty(environ, "MOONCAKE_CONFIG"))
        config = None if config is None else _config(config, cwd)
        layers = Layers({key.name: key.default for key in KEYS.values()})
        upstream, passed_over = _upstream(environ, cwd)
        _take(upstream, layers, cwd, by_environment=False)
        user = user_file(environ) if config is None else config
        ignored = list(passed_over)
        project = cwd / PROJECT_FILE
        for file, required in ((system, False), (user, config is not None), (project, False)):
            if file is None:
                continue
            never = NEVER_BY_PROJECT if file == project else ()
            for name, value in read_file(file, required=required, never=never, ignored=ignored).items():
                layers.put(name, str(file), value)
        _take(upstream, layers, cwd, by_environment=True)
        for name, key in KEYS.items():
            if key.variable in environ and (environ[key.variable] or key.variable not in UPSTREAMS_TOO):
                origin = _origin_of(environ, key.variable)
                layers.take(name, origin, partial(key.read, environ[key.variable], cwd))
            flag = (flags or {}).get(name)
            if flag is not None:
                layers.put(name, f"option {key.option}", _flag(key, flag, cwd))
        _keep_to_loopback(layers, upstream)
        secrets = {name: _not_empty(environ, each) for name, (each, _) in SECRETS.items() if each in environ}
        return cls(
            origins=layers.origins, config=config, given_secrets=secrets, ignored=tuple(ignored), **layers.values
        )

    @property
    def secret(self) -> bytes | None:
        """The cluster secret, or None. Raises ``BadConfig`` where its file cannot be read."""
        return self._secret("secret")

    @property
    def secret_source(self) -> bytes | Path | None:
        """The cluster secret, or the file in which it may change. Raises ``BadConfig`` where that cannot be read."""
        secret = self.secret
        return secret if secret is None or "secret" in self.given_secrets else self.secret_file

    @property
    def etcd_password(self) -> str | None:
        """The etcd user's password, or None. Raises ``BadConfig`` where its file cannot be read."""
        password = self._secret("etcd_password")
        return None if password is None else password.decode("utf-8", "surrogateescape")

    @property
    def etcd_password_source(self) -> str:
        """The file in which the etcd user's password stands and may change; empty where it does not."""
        return "" if "etcd_password" in self.given_secrets else str(self.etcd_password_file or "")

    def _secret(self, name: str) -> bytes | None:
        if name in self.given_secrets:
            return os.fsencode(self.given_secrets[name])
        file_key = SECRETS[name][1]
        file: Path | None = getattr(self, file_key)
        return None if file is None else read_secret(file, self.origins[file_key])

    def shown(self) -> list[tuple[str, str | int | float | bool | None, str]]:
        """Key, value and origin of every setting, in order; a secret's value is only said to be set."""
        rows: list[tuple[str, str | int | float | bool | None, str]] = [
            (name, shown(getattr(self, name)), self.origins[name]) for name in KEYS
        ]
        for name, (variable, file_key) in SECRETS.items():
            if name in self.given_secrets:
                rows.append((name, SECRET_SHOWN, of_variable(variable)))
            elif getattr(self, file_key) is not None:
                rows.append((name, SECRET_SHOWN, f"{file_key}, {self.origins[file_key]}"))
            else:
                rows.append((name, None, DEFAULT_ORIGIN))
        return rows

    def environment(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """An environment in which another process, wherever it runs, comes to the same settings.

        Secrets given by the environment stay there; those in files are handed on as paths.
        """
        result = dict(os.environ if environ is None else environ)
        handed: dict[str, list[str]] = {}
        for name, key in KEYS.items():
            value = getattr(self, name)
            if self.origins[name] != DEFAULT_ORIGIN and value is not None:
                text = result[key.variable] = str(value).lower() if isinstance(value, bool) else str(value)
                handed[key.variable] = [text, self.origins[name]]
        result[HANDED_ON] = json.dumps(handed)
        if self.config is not None:
            result["MOONCAKE_CONFIG"] = str(self.config)
        if result.get("MOONCAKE_CONFIG_PATH"):
            result["MOONCAKE_CONFIG_PATH"] = os.path.abspath(os.path.expanduser(result["MOONCAKE_CONFIG_PATH"]))
        return result


def _not_empty(environ: Mapping[str, str], variable: str) -> str:
    """What a variable says. Raises ``BadConfig`` where that is nothing: it was meant to say something."""
    if not environ[variable]:
        raise BadConfig(origin=of_variable(variable), detail="it is empty")
    return environ[variable]


def _origin_of(environ: Mapping[str, str], variable: str) -> str:
    """Where the value of a variable comes from: what the process that handed it on to this one knew of it."""
    try:
        text, origin = json.loads(environ.get(HANDED_ON, "{}"))[variable]
    except (ValueError, KeyError, TypeError):
        return of_variable(variable)
    return str(origin) if text == environ[variable] else of_variable(variable)


def _config(given: Path, cwd: Path) -> Path:
    try:
        return absolute(given, cwd)
    except ValueError as error:
        raise UsageError(detail=f"--config or MOONCAKE_CONFIG: {error}") from None


def _upstream(environ: Mapping[str, str], cwd: Path) -> tuple[list[Given], Sequence[Ignored]]:
    from engine.config.variables import concerns  # noqa: PLC0415 - most machines are not told anything there

    if not concerns(environ):
        return [], ()
    from p2pstore.settings.upstream import upstream_settings  # noqa: PLC0415 - as above

    return upstream_settings(environ, cwd)


def _take(upstream: Sequence[Given], layers: Layers, cwd: Path, *, by_environment: bool) -> None:
    for given in upstream:
        if given.by_environment is by_environment:
            layers.take(given.key, given.origin, partial(KEYS[given.key].read, given.text, cwd))


def _keep_to_loopback(layers: Layers, upstream: Sequence[Given]) -> None:
    """Do not tell others upstream's address of this machine where nobody listens on it."""
    told = {given.origin for given in upstream if given.key == "advertise"}
    if layers.origins["advertise"] in told and _on_loopback(layers.values["listen"]):
        layers.put("advertise", DEFAULT_ORIGIN, None)


def _on_loopback(listen: str) -> bool:
    """Whether it means the loopback here; False for what means nothing here, which the agent will say."""
    from engine.net.addresses import parse_ports  # noqa: PLC0415 - as above
    from engine.net.listening import address_of  # noqa: PLC0415 - as above
    from engine.net.sockets import is_loopback  # noqa: PLC0415 - as above

    try:
        return is_loopback(address_of(parse_ports(listen)[0]))
    except NoSuchAddress:
        return False


def _flag(key: Key, value: object, cwd: Path) -> Any:
    try:
        return understood(partial(key.read, value, cwd), key.option)
    except BadConfig as error:
        # Whoever typed it knows where it comes from; the advice of a bad file would mislead.
        raise UsageError(detail=str(error)) from None
