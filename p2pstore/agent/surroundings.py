"""What a process has from where it was started: an agent keeps that, whatever a later command of its user has.

Limits that were raised, groups that were joined and programs that were updated since do not reach it.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine._version import __version__

_STATUS = Path("/proc/self/status")
_UMASK = re.compile(r"^Umask:\s*([0-7]+)", re.MULTILINE)

_LIMITS = {
    "open_files": (resource.RLIMIT_NOFILE, "open files"),
    "locked_memory": (resource.RLIMIT_MEMLOCK, "locked bytes"),
}


def surroundings() -> dict[str, Any]:
    """Those of this process, as JSON types. A limit is None where there is none."""
    found: dict[str, Any] = {
        "version": __version__,
        "user": os.geteuid(),
        "groups": sorted({os.getegid(), *os.getgroups()}),
        "umask": _umask(),
        "network": _network(),
    }
    for name, (number, _) in _LIMITS.items():
        soft = resource.getrlimit(number)[0]
        found[name] = None if soft == resource.RLIM_INFINITY else soft
    return found


def differences(agent: object, ours: Mapping[str, Any]) -> list[str]:
    """How those that an agent tells differ from ours to our disadvantage; what is not told is left out. Pure."""
    theirs = agent if isinstance(agent, Mapping) else {}

    def differs(name: str) -> bool:
        return name in theirs and theirs[name] != ours[name]

    found = []
    if differs("version"):
        found.append(f"the agent is of version {theirs['version']}, and this command of {ours['version']}")
    if differs("user"):
        found.append(f"the agent reads and writes files as user {theirs['user']}, and this command as {ours['user']}")
    groups = theirs.get("groups")
    lacking = [each for each in ours["groups"] if each not in groups] if isinstance(groups, list) else []
    if lacking:
        found.append(f"the agent was started without the groups {', '.join(map(str, lacking))} of this command")
    if differs("umask"):
        found.append(f"directories that a get makes have the agent's umask {theirs['umask']}, not {ours['umask']}")
    if differs("network"):
        found.append("the agent is in another network namespace: it may not reach what this command reaches")
    for name, (_, words) in _LIMITS.items():
        limit, own = theirs.get(name), ours[name]
        if isinstance(limit, int) and (own is None or own > limit):
            found.append(f"the agent may have {limit} {words}, and this command {'any number' if own is None else own}")
    return found


def _umask() -> str:
    try:
        found = _UMASK.search(_STATUS.read_text())
    except OSError:
        return ""
    return found[1] if found else ""


def _network() -> int:
    try:
        return os.stat("/proc/self/ns/net").st_ino
    except OSError:
        return 0
