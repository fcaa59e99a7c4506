"""What each command prints with ``--json``, by how it is called: docs/json.md is made of it.

``tests/e2e/test_json_keys.py`` runs every one, and holds what comes to what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from scripts.json_keys import benches, machine, objects, pool
from scripts.json_keys.form import Shape, shape
from scripts.json_keys.objects import FAILED


class Document(NamedTuple):
    """What ``commands`` print, ``when`` that depends on how they are called."""

    commands: tuple[str, ...]
    shape: Shape
    when: str = ""


def _several(each: Shape, one: str) -> Shape:
    return shape(f"objects [object] {one}\nfailed [object] what could not be done", objects=each, failed=FAILED)


SEVERAL = "several names, or a pattern"
BACKGROUND = "--background"
ENDLESS = "a line each"

DOCUMENTS = (
    Document(("register",), objects.REGISTERED | shape("""
seconds    seconds  that it took
path?      text     where what came from standard input, or from an origin, is kept
commit?    text     of what came from the hub
revision?  text     of what came from another origin
""")),
    Document(("register",), objects.SEVERAL_REGISTERED, "several paths"),
    Document(("get", "jobs wait"), objects.GOT),
    Document(("get",), _several(objects.GOT, "what was done"), SEVERAL),
    Document(("get", "jobs show", "jobs cancel"), objects.JOB, f"get {BACKGROUND}"),
    Document(("get",), _several(objects.JOB, "the jobs"), f"{SEVERAL}, {BACKGROUND}"),
    Document(("jobs list",), shape("jobs [object] the oldest first", jobs=objects.JOB)),
    Document(("list",), shape("objects [object] in the order of their names", objects=objects.LISTED)),
    Document(("info",), objects.INFO),
    Document(("info",), _several(objects.INFO, "each"), SEVERAL),
    Document(("verify",), objects.VERIFIED),
    Document(("verify",), _several(objects.VERIFIED, "what was read"), SEVERAL),
    Document(("unregister",), objects.WITHDRAWN),
    Document(("unregister",), _several(objects.WITHDRAWN, "what was withdrawn"), SEVERAL),
    Document(("history",), objects.HISTORY),
    Document(("watch",), objects.WATCHED, ENDLESS),
    Document(("tag",), objects.TAGS, "no NEW"),
    Document(("tag",), shape(
        "name text the object's name\nmanifest text the version\ntags [object] what it was given", tags=objects.TAGGED
    ), "NEW"),
    Document(("tag",), shape("name text the object's\ntag text the tag\nmanifest text what it led to"), "--remove"),
    Document(("cache list",), shape("copies [object] by name and place", copies=objects.COPY) | objects.QUOTA),
    Document(("cache du",), objects.DU | objects.QUOTA),
    Document(("cache pin", "cache unpin"), shape("copies [object] of these names", copies=objects.COPY)),
    Document(("cache prune",), objects.PRUNED),
    Document(("node start", "node status"), machine.STATUS),
    Document(("node stop",), machine.STOPPED),
    Document(("node limit",), machine.LIMITS),
    Document(("node logs",), machine.LOG),
    Document(("node logs",), machine.LOG_GROWS, f"--follow, {ENDLESS}"),
    Document(("top",), machine.TOP, ENDLESS),
    Document(("config show",), machine.CONFIG),
    Document(("config show",), machine.ORIGINS, "--origin"),
    Document(("doctor",), machine.DOCTOR),
    Document(("topology",), machine.TOPOLOGY),
    Document(("etcd inspect",), machine.ETCD),
    Document(("etcd gc",), machine.COLLECTED),
    Document(("metadata serve", "proxy"), machine.SERVES),
    Document(("store master",), pool.MASTER),
    Document(("store give",), pool.GIVEN),
    Document(("store put",), pool.PUT),
    Document(("store get",), pool.VALUE),
    Document(("store list",), pool.LISTED),
    Document(("store info",), pool.INFO),
    Document(("store remove",), pool.REMOVED),
    Document(("store status",), pool.STATUS),
    Document(("store why",), pool.WHY),
    Document(("store top",), pool.TOP, ENDLESS),
    Document(("serve init",), pool.ENGINE_FILES),
    Document(("bench transfer",), benches.TRANSFER),
    Document(("bench store",), benches.STORE),
    Document(("bench gpu",), benches.GPU),
    Document(("bench broadcast",), benches.BROADCAST),
    Document(("bench delta",), benches.DELTA),
    Document(("bench simulate",), benches.SIMULATE),
    Document(("bench serve",), benches.SERVE),
)  # fmt: skip

WITHOUT: Mapping[str, str] = {"node run": "what it prints in the foreground is its log"}
"""Commands that print no document, and why."""
