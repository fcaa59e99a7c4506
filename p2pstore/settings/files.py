"""Configuration files and secrets: found, bounded, parsed."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from engine.config.layers import understood
from engine.config.trust import NotObeyed, open_obeyed
from p2pstore.errors import BadConfig
from p2pstore.objects.units import format_size
from p2pstore.settings.keys import KEYS, SECRETS

SYSTEM_FILE = Path("/etc/mooncake/config.toml")


PROJECT_FILE = "mooncake.toml"


NEVER_BY_PROJECT = (
    frozenset({"insecure", "listen", "advertise", "secret_file", "group", "etcd_password_file"})
    | {"metrics", "cache_quota", "hf_endpoint", "hf_token_file", "hf_upstream"}
    | {f"master_{name}" for name in ("insecure", "listen", "metrics", "allow", "state")}
)
"""Keys that a project's file does not set: whoever gave us the project would say who may read what is ours."""

Ignored = tuple[str, str]
"""A file, or a key of one, that was not obeyed, and why."""

MAX_FILE_BYTES = 1 << 20
"""A configuration file."""


def home_directory(environ: Mapping[str, str]) -> Path | None:
    """The user's home directory: ``HOME``, else what passwd says; None where neither names a directory."""
    given = environ.get("HOME", "")
    if not os.path.isabs(given):
        try:
            given = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:  # of a random user in a container
            return None
    return Path(given) if os.path.isabs(given) else None


def user_file(environ: Mapping[str, str]) -> Path | None:
    """The user's own configuration file, which may not exist; None where the user has no home directory."""
    given = environ.get("XDG_CONFIG_HOME", "")
    home = home_directory(environ)
    base = Path(given) if os.path.isabs(given) else None if home is None else home / ".config"
    return None if base is None else base / "mooncake" / "config.toml"


def read_file(
    file: Path, *, required: bool, never: Collection[str] = (), ignored: list[Ignored] | None = None
) -> dict[str, Any]:
    """The values in one file, parsed; nothing when it does not exist and need not.

    Nor is there anything in a file that others can write, and the keys of ``never`` are passed over; ``ignored`` is
    told. A ``required`` file, which somebody has named, is refused instead. Raises ``BadConfig``.
    """
    ignored = [] if ignored is None else ignored
    try:
        with open_obeyed(file, named=required) as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except NotObeyed as error:
        if required:
            raise BadConfig(origin=str(file), detail=f"it is not obeyed, since {error}") from None
        ignored.append((str(file), str(error)))
        return {}
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
        read = partial(key.read, value, file.parent.absolute())
        understood_value = understood(read, f"{file}, {name}")
        if name in never:
            ignored.append((f"{file}, {name}", "a file of the current directory never sets it"))
        else:
            values[name] = understood_value
    return values


def _parse_toml(data: bytes, file: Path) -> dict[str, Any]:
    # Imported here: it costs as much as the rest of a start, and most machines have no file.
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415 - see above
    else:
        import tomli as tomllib  # noqa: PLC0415 - see above
    try:
        values: dict[str, Any] = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # of text, of TOML, of a number too long, of brackets too deep
        raise BadConfig(origin=str(file), detail=f"it is not TOML ({error})") from error
    return values


def _unknown_key(name: str) -> str:
    if name in SECRETS:
        variable, file_key = SECRETS[name]
        return f"a secret is not written here; set {variable}, or name a file with {file_key}"
    known: Sequence[str] = get_close_matches(name.lower().replace("-", "_"), KEYS, n=1, cutoff=0.5)
    meant = f"; did you mean {known[0]}?" if known else f"; the keys are {', '.join(KEYS)}"
    return f"unknown key {name!r}{meant}"
