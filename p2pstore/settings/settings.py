"""Settings: what they are, where each comes from, and which source wins.

A flag wins over the environment (``MOONCAKE_<KEY>``), that over the project file (``mooncake.toml`` in the current
directory, not in its parents), that over the user's file (``$XDG_CONFIG_HOME/mooncake/config.toml``, or the one that
``--config`` or ``MOONCAKE_CONFIG`` names instead), that over ``/etc/mooncake/config.toml``, that over the default.
What Mooncake's own configuration says counts too (``p2pstore.settings.upstream``): its variables below ours and above
the files, its ``mooncake.json`` below the files.

Relative paths in a file are relative to the file; elsewhere to the current directory. A secret's text is taken from the
environment or from a file that a ``*_file`` key names, never from a flag or a configuration file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2pstore.errors import BadConfig, BadName, UsageError
from p2pstore.objects.names import check_node_name
from p2pstore.objects.units import format_size, parse_rate, parse_size

if TYPE_CHECKING:
    from p2pstore.settings.upstream import Given

SYSTEM_FILE = Path("/etc/mooncake/config.toml")
PROJECT_FILE = "mooncake.toml"
ENVIRONMENT_PREFIX = "MOONCAKE_"
DEFAULT_ORIGIN = "default"

MIN_CHUNK_SIZE = 1 << 20
MAX_CHUNK_SIZE = 64 << 20
MAX_LEASE_TTL = 3600
"""Seconds; a dead node is listed for this long at most."""
MIN_LEASE_TTL = 2
"""Seconds; etcd grants no shorter lease reliably."""
MAX_CONNECTIONS = 64
"""To one peer."""
MAX_FILE_BYTES = 1 << 20
"""A configuration file."""
MAX_SECRET_BYTES = 4096
"""A secret or password, and the file that holds it."""

TRANSPORTS = ("auto", "rdma", "tcp", "local")
HASHES = ("xxh3_128", "blake3")


@dataclass(frozen=True)
class Key:
    """One setting: how its text is understood, what it is for, and its default.

    ``parse`` gets the text (of a flag, the environment or a file) and the directory that relative paths start from; it
    raises ``ValueError`` with a sentence of its own.
    """

    name: str
    parse: Callable[[str, Path], Any]
    help: str
    default: Any = None

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def option(self) -> str:
        """The command line option, where there is one."""
        return "--" + self.name.replace("_", "-")


def _text(text: str, _base: Path) -> str:
    if not text.strip() or "\0" in text:
        raise ValueError("it is empty" if not text.strip() else "it has a NUL")
    return text


def _path(text: str, base: Path) -> Path:
    _text(text, base)
    return Path(os.path.normpath(base / os.path.expanduser(text)))


def _boolean(text: str, _base: Path) -> bool:
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off", ""}:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def _integer(low: int, high: int) -> Callable[[str, Path], int]:
    def parse(text: str, _base: Path) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"{value} is not between {low} and {high}")
        return value

    return parse


def _choice(*allowed: str) -> Callable[[str, Path], str]:
    def parse(text: str, _base: Path) -> str:
        if text not in allowed:
            raise ValueError(f"{text!r} is none of {', '.join(allowed)}")
        return text

    return parse


def _node(text: str, _base: Path) -> str:
    try:
        return check_node_name(text)
    except BadName as error:
        raise ValueError(str(error)) from None


def parse_chunk_size(text: str) -> int:
    """Bytes of a chunk from text like ``4MiB``; a power of two between 1 and 64 MiB, else ``ValueError``."""
    size = parse_size(text)
    if not MIN_CHUNK_SIZE <= size <= MAX_CHUNK_SIZE or size & (size - 1):
        near = min(max(1 << max(size, 1).bit_length() - 1, MIN_CHUNK_SIZE), MAX_CHUNK_SIZE)
        near = 2 * near if 2 * near <= MAX_CHUNK_SIZE and 2 * near - size < size - near else near
        shown = format_size(near).replace(".0 ", "")
        raise ValueError(f"{text!r} is not a power of two between 1MiB and 64MiB; {shown} is the nearest")
    return size


def _chunk_size(text: str, _base: Path) -> int:
    return parse_chunk_size(text)


def _rate(text: str, _base: Path) -> int:
    return parse_rate(text)


def parse_address(text: str, default_port: int = 0) -> tuple[str, int]:
    """``HOST``, ``HOST:PORT``, ``[V6]:PORT`` or a bare IPv6 address as host and port; else ``ValueError``."""
    host, separator, port = text.rpartition(":")
    if text.startswith("["):
        inside, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not an address; write [IPv6]:PORT")
        host, port = inside, rest[1:]
    elif not separator or ":" in host:
        host, port = text, ""
    if not host or any(c.isspace() or c == "/" for c in host):
        raise ValueError(f"{text!r} is not an address; write HOST or HOST:PORT")
    if not port:
        return host, default_port
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{port!r} in {text!r} is not a port (0 to 65535)")
    return host, int(port)


def _address(text: str, base: Path) -> str:
    parse_address(_text(text, base))
    return text


def _metadata(text: str, _base: Path) -> str:
    from p2pstore.metadata.urls import parse_url  # noqa: PLC0415 - most commands are given none

    try:
        return str(parse_url(text))
    except BadConfig as error:
        raise ValueError(error.fields["detail"]) from None


KEYS: Mapping[str, Key] = {
    key.name: key
    for key in (
        Key("home", _path, "directory that holds the agent's state, sockets and log"),
        Key("metadata", _metadata, "metadata server, like etcd://a:2379,b:2379; unset: an etcd of the agent's own"),
        Key("node", _node, "this node's name; unset: the host's name"),
        Key("listen", _address, "address that the agent listens on, ADDRESS[:PORT]", "127.0.0.1"),
        Key("advertise", _address, "address that other nodes are told, if it is not the one listened on"),
        Key("insecure", _boolean, "listen on an open address without a cluster secret", default=False),
        Key("secret_file", _path, "file that holds the cluster secret"),
        Key("zone", _text, "where this node is; peers of the same zone are asked first"),
        Key("lease_ttl", _integer(MIN_LEASE_TTL, MAX_LEASE_TTL), "seconds until a dead node disappears", 10),
        Key("transport", _choice(*TRANSPORTS), "how get moves bytes: auto, rdma, tcp or local", "auto"),
        Key("rdma_devices", _text, "RDMA devices to use, joined by commas; all, or none", "all"),
        Key("hash", _choice(*HASHES), "chunk hash of register: xxh3_128, or blake3 for peers not trusted", "xxh3_128"),
        Key("chunk_size", _chunk_size, "chunk size of register; unset: by the object's size"),
        Key("connections", _integer(1, MAX_CONNECTIONS), "connections to each peer", 2),
        Key("upload_limit", _rate, "bytes a second that this node sends to peers, like 500MB/s; 0: no limit", 0),
        Key("download_limit", _rate, "bytes a second that gets of this node receive; 0: no limit", 0),
        Key("etcd_user", _text, "etcd user"),
        Key("etcd_password_file", _path, "file that holds the etcd user's password"),
        Key("etcd_ca", _path, "CA certificate that etcd's is checked against"),
        Key("etcd_cert", _path, "client certificate for etcd"),
        Key("etcd_key", _path, "key of the client certificate"),
    )
}

SECRETS: Mapping[str, tuple[str, str]] = {
    "secret": ("MOONCAKE_SECRET", "secret_file"),
    "etcd_password": ("MOONCAKE_ETCD_PASSWORD", "etcd_password_file"),
}
"""Each secret's environment variable, and the key that names its file."""


@dataclass(frozen=True)
class Settings:
    """Every setting's value. ``origins`` says for each key where the value came from.

    ``config`` is the file that ``--config`` or ``MOONCAKE_CONFIG`` named, or None.
    """

    home: Path | None
    metadata: str | None
    node: str | None
    listen: str
    advertise: str | None
    insecure: bool
    secret_file: Path | None
    zone: str | None
    lease_ttl: int
    transport: str
    rdma_devices: str
    hash: str
    chunk_size: int | None
    connections: int
    upload_limit: int
    download_limit: int
    etcd_user: str | None
    etcd_password_file: Path | None
    etcd_ca: Path | None
    etcd_cert: Path | None
    etcd_key: Path | None
    origins: Mapping[str, str] = field(repr=False)
    config: Path | None = None
    given_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

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
        cwd = _current_directory() if cwd is None else cwd
        if config is None and environ.get("MOONCAKE_CONFIG"):
            config = Path(environ["MOONCAKE_CONFIG"])
        config = None if config is None else Path(os.path.normpath(cwd / config.expanduser()))
        values: dict[str, Any] = {key.name: key.default for key in KEYS.values()}
        origins = dict.fromkeys(KEYS, DEFAULT_ORIGIN)
        upstream = _upstream(environ, cwd)
        _take(upstream, values, origins, cwd, by_environment=False)
        user = _user_file(environ) if config is None else config
        for file, required in ((system, False), (user, config is not None), (cwd / PROJECT_FILE, False)):
            for name, value in _read_file(file, required=required).items():
                values[name], origins[name] = value, str(file)
        _take(upstream, values, origins, cwd, by_environment=True)
        for name, key in KEYS.items():
            if environ.get(key.variable):
                origins[name] = f"environment {key.variable}"
                values[name] = _parse(key, environ[key.variable], cwd, origins[name])
            flag = (flags or {}).get(name)
            if flag is not None:
                origins[name] = f"option {key.option}"
                values[name] = _parse_flag(key, flag, cwd)
        _keep_to_loopback(values, origins, upstream)
        secrets = {name: environ[variable] for name, (variable, _) in SECRETS.items() if environ.get(variable)}
        return cls(origins=origins, config=config, given_secrets=secrets, **values)

    @property
    def secret(self) -> bytes | None:
        """The cluster secret, or None. Raises ``BadConfig`` where its file cannot be read."""
        return self._secret("secret")

    @property
    def etcd_password(self) -> str | None:
        """The etcd user's password, or None. Raises ``BadConfig`` where its file cannot be read."""
        password = self._secret("etcd_password")
        return None if password is None else password.decode("utf-8", "surrogateescape")

    def _secret(self, name: str) -> bytes | None:
        if name in self.given_secrets:
            return os.fsencode(self.given_secrets[name])
        file_key = SECRETS[name][1]
        file: Path | None = getattr(self, file_key)
        return None if file is None else _read_secret(file, self.origins[file_key])

    def shown(self) -> list[tuple[str, str | int | bool | None, str]]:
        """Key, value and origin of every setting, in order; a secret's value is only said to be set."""
        rows: list[tuple[str, str | int | bool | None, str]] = []
        for name in KEYS:
            value = getattr(self, name)
            rows.append((name, str(value) if isinstance(value, Path) else value, self.origins[name]))
        for name, (variable, file_key) in SECRETS.items():
            if name in self.given_secrets:
                rows.append((name, "set, not shown", f"environment {variable}"))
            elif getattr(self, file_key) is not None:
                rows.append((name, "set, not shown", f"{file_key}, {self.origins[file_key]}"))
            else:
                rows.append((name, None, DEFAULT_ORIGIN))
        return rows

    def environment(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """An environment in which another process, wherever it runs, comes to the same settings.

        Secrets given by the environment stay there; those in files are handed on as paths.
        """
        result = dict(os.environ if environ is None else environ)
        for name, key in KEYS.items():
            value = getattr(self, name)
            if self.origins[name] != DEFAULT_ORIGIN and value is not None:
                result[key.variable] = str(value).lower() if isinstance(value, bool) else str(value)
        if self.config is not None:
            result["MOONCAKE_CONFIG"] = str(self.config)
        if result.get("MOONCAKE_CONFIG_PATH"):
            result["MOONCAKE_CONFIG_PATH"] = os.path.abspath(os.path.expanduser(result["MOONCAKE_CONFIG_PATH"]))
        return result


def _current_directory() -> Path:
    """Where we are; the root where that directory was removed, which holds no file of ours."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")


def _upstream(environ: Mapping[str, str], cwd: Path) -> list[Given]:
    from engine.config.variables import concerns  # noqa: PLC0415 - most machines are not told anything there

    if not concerns(environ):
        return []
    from p2pstore.settings.upstream import upstream_settings  # noqa: PLC0415 - as above

    return upstream_settings(environ, cwd)


def _take(
    upstream: Sequence[Given], values: dict[str, Any], origins: dict[str, str], cwd: Path, *, by_environment: bool
) -> None:
    for given in upstream:
        if given.by_environment is by_environment:
            values[given.key] = _parse(KEYS[given.key], given.text, cwd, given.origin)
            origins[given.key] = given.origin


def _keep_to_loopback(values: dict[str, Any], origins: dict[str, str], upstream: Sequence[Given]) -> None:
    """Do not tell others upstream's address of this machine where nobody listens on it."""
    if origins["advertise"] in {given.origin for given in upstream if given.key == "advertise"}:
        from engine.net.sockets import is_loopback  # noqa: PLC0415 - as above

        if is_loopback(parse_address(values["listen"])[0]):
            values["advertise"], origins["advertise"] = None, DEFAULT_ORIGIN


def _user_file(environ: Mapping[str, str]) -> Path:
    given = environ.get("XDG_CONFIG_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return base / "mooncake" / "config.toml"


def _read_file(file: Path, *, required: bool) -> dict[str, Any]:
    """The values in one file, parsed; nothing when it does not exist and need not."""
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        if required:
            raise BadConfig(origin=str(file), detail="there is no such file") from None
        return {}
    except OSError as error:
        raise BadConfig(origin=str(file), detail=f"it cannot be read ({error.strerror})") from error
    if len(data) > MAX_FILE_BYTES:
        raise BadConfig(origin=str(file), detail=f"it is longer than {format_size(MAX_FILE_BYTES)}")
    values: dict[str, Any] = {}
    for name, value in _parse_toml(data, file).items():
        key = KEYS.get(name)
        if key is None:
            raise BadConfig(origin=str(file), detail=_unknown_key(name))
        values[name] = _parse(key, value, file.parent.absolute(), f"{file}, {name}")
    return values


def _parse_toml(data: bytes, file: Path) -> dict[str, Any]:
    # Imported here: it costs as much as the rest of a start, and most machines have no file.
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415 - see above
    else:
        import tomli as tomllib  # noqa: PLC0415 - see above
    try:
        values: dict[str, Any] = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(origin=str(file), detail=f"it is not TOML ({error})") from error
    return values


def _unknown_key(name: str) -> str:
    if name in SECRETS:
        variable, file_key = SECRETS[name]
        return f"a secret is not written here; set {variable}, or name a file with {file_key}"
    known: Sequence[str] = get_close_matches(name.lower().replace("-", "_"), KEYS, n=1, cutoff=0.5)
    meant = f"; did you mean {known[0]}?" if known else f"; the keys are {', '.join(KEYS)}"
    return f"unknown key {name!r}{meant}"


def _parse(key: Key, value: object, base: Path, origin: str) -> Any:
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, (int, Path)):
        value = str(value)
    if not isinstance(value, str):
        raise BadConfig(origin=origin, detail=f"a {type(value).__name__} cannot be {key.name}")
    try:
        return key.parse(value, base)
    except ValueError as error:
        raise BadConfig(origin=origin, detail=str(error)) from None


def _parse_flag(key: Key, value: object, cwd: Path) -> Any:
    try:
        return _parse(key, value, cwd, key.option)
    except BadConfig as error:
        # Whoever typed it knows where it comes from; the advice of a bad file would mislead.
        raise UsageError(detail=str(error)) from None


def _read_secret(file: Path, origin: str) -> bytes:
    """A secret's text, without the newline that editors put at its end."""
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_SECRET_BYTES + 1).rstrip(b"\r\n")
    except OSError as error:
        raise BadConfig(origin=origin, detail=f"secret file {file} cannot be read ({error.strerror})") from error
    if not text or len(text) > MAX_SECRET_BYTES:
        size = "empty" if not text else f"longer than {MAX_SECRET_BYTES} bytes"
        raise BadConfig(origin=origin, detail=f"secret file {file} is {size}")
    return text
