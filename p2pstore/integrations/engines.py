"""Why two engines do not find each other's blocks: what each is, from what there is of it, and what differs. Pure.

There is something of an engine in the files that it was started with, in a key of the pool, and in what a running vLLM
says of itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from p2pstore.errors import UsageError
from p2pstore.integrations import fingerprint
from p2pstore.integrations.fingerprint import Fingerprint
from p2pstore.kv.master.findings import Finding

MIN_PARTS = 4
"""Of a key of an engine, at least: the model, shards, and the hash of tokens."""

_CONFIG = re.compile(r"^vllm:cache_config_info\{(?P<labels>.*)\} ", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_SHARD = re.compile(r"(tp_rank|pcp|dcp|pp_rank|group|store_\w+):?.*")
_HASH = re.compile(r"[0-9a-f]{16,}")


class EngineFacts(NamedTuple):
    """What is known of an engine; None where nothing is said of it."""

    name: str
    """Where that is known from, as the user named it."""
    master: str | None = None
    tenant: str | None = None
    prefix: str | None = None
    """What its keys begin with, where it is no fingerprint; empty for nothing."""
    weights: str | None = None
    dtype: str | None = None
    block_size: int | None = None
    hash_name: str | None = None
    seed: str | None = None
    place: str | None = None
    """Kind of device and order of a block's bytes."""
    model: str | None = None
    shards: str | None = None
    """Which part of the model: ranks and groups, as keys have them."""
    caching: bool | None = None
    """Whether it keeps prefixes at all."""


def of_files(name: str, documents: Mapping[str, Mapping[str, Any]]) -> EngineFacts:
    """An engine by the JSON that it is started with: ``mooncake.json``, its own, or both. Raises ``UsageError``."""
    facts = EngineFacts(name)
    known = False
    for document in documents.values():
        extra = document.get("kv_connector_extra_config") or document.get("extra_config") or {}
        if not isinstance(extra, Mapping):
            raise UsageError(detail=f"{name}: what is extra in it is no JSON object")
        prefix = _first(document.get("cache_prefix"), extra.get("cache_prefix"), extra.get("mooncake_cache_prefix"))
        master = _first(document.get("master_server_address"), extra.get("mooncake_master_server_address"))
        known = known or prefix is not None or master is not None or "kv_connector" in document
        if master is not None:
            facts = facts._replace(master=str(master), tenant=str(document.get("tenant_id") or "default"))
        if prefix is not None:
            facts = _with_prefix(facts, str(prefix))
    if not known:
        raise UsageError(detail=f"{name} says nothing of a store; name mooncake.json, or the directory that it is in")
    return facts if facts.weights is not None or facts.prefix is not None else facts._replace(prefix="")


def of_key(key: str) -> EngineFacts | None:
    """An engine by one of its keys in the pool; None where it is not vLLM's."""
    parts = key.split("@")
    if len(parts) < MIN_PARTS or not _HASH.fullmatch(parts[-1]):
        return None
    first = next((place for place, each in enumerate(parts) if place and _SHARD.fullmatch(each)), None)
    if first is None:
        return None
    found = fingerprint.parse(key)
    facts = EngineFacts(f"key {key[:20]}...", model=parts[first - 1], shards="@".join(parts[first:-1]))
    before = parts[: first - 1]
    if found is None:
        return facts._replace(prefix="@".join(before))
    rest = before[len(found.text.split("@")) :]
    return _with_fingerprint(facts, found)._replace(place=rest[0] if rest else None)


def of_metrics(name: str, text: str) -> EngineFacts:
    """A running vLLM by its metrics. Raises ``UsageError`` where they are not vLLM's."""
    found = _CONFIG.search(text)
    if found is None:
        raise UsageError(detail=f"{name} has no metric vllm:cache_config_info: it is no vLLM, or shows no metrics")
    labels = {key: json.loads(f'"{value}"') for key, value in _LABEL.findall(found["labels"])}
    size = str(labels.get("block_size", ""))
    return EngineFacts(
        name,
        block_size=int(size) if size.isdigit() else None,
        hash_name=labels.get("prefix_caching_hash_algo"),
        place=None,
        caching={"True": True, "False": False}.get(str(labels.get("enable_prefix_caching"))),
    )


def compare(one: EngineFacts, other: EngineFacts) -> list[Finding]:
    """What keeps two engines from finding each other's blocks; or that nothing does."""
    found = list(_differences(one, other))
    if found:
        return found
    unknown = [what for what in _NAMES if getattr(one, what) is None or getattr(other, what) is None]
    text = f"nothing that is known keeps {one.name} and {other.name} from finding each other's blocks"
    if unknown:
        text += f"; not known of both: {', '.join(_NAMES[what] for what in unknown)}"
    return [
        Finding(
            "same",
            text,
            "a request's cache_salt and the text itself must be the same, too; less than a block is never stored",
            good=True,
        )
    ]


def _differences(one: EngineFacts, other: EngineFacts) -> Iterator[Finding]:
    for each in (one, other):
        if each.caching is False:
            yield Finding("no-caching", f"{each.name} keeps no prefixes", "start it without --no-enable-prefix-caching")
    for field, cause, what, advice in _CAUSES:
        mine, its = getattr(one, field), getattr(other, field)
        if mine is not None and its is not None and mine != its:
            yield Finding(cause, f"{what}: {one.name} has {_shown(mine)}, {other.name} has {_shown(its)}", advice)


_AGAIN = "run 'mooncake serve init' for both on the same checkpoint, with the same options, and start them as it says"

_CAUSES = (
    ("master", "other-store", "they use different masters", "give both the same master_server_address"),
    ("tenant", "other-tenant", "they ask as different tenants", "give both the same tenant_id"),
    ("weights", "other-weights", "their weights differ", "load the same checkpoint in both"),
    ("dtype", "other-dtype", "their types differ", "start both with the same --dtype and --kv-cache-dtype"),
    ("block_size", "other-block-size", "their blocks have other sizes", "start both with the same --block-size"),
    ("hash_name", "other-hash", "they hash tokens in other ways", "give both one --prefix-caching-hash-algo"),
    ("seed", "other-seed", "their hashes have other seeds", "set the same PYTHONHASHSEED for both"),
    ("place", "other-layout", "blocks lie in memory in other ways", "use the same kind of device and KV layout"),
    ("prefix", "other-prefix", "their keys begin with other words", _AGAIN),
    (
        "model",
        "other-name",
        "their models are called otherwise",
        "keep the checkpoint in a directory of the same name on both: keys have the last part of its path",
    ),
    (
        "shards",
        "other-shards",
        "these are other parts of the model",
        "compare keys of the same rank and group; the parallel sizes must be the same",
    ),
)
"""What may differ: a field, the word for it, what is so, and what to do."""

_NAMES = {
    "weights": "weights",
    "dtype": "type",
    "block_size": "block size",
    "hash_name": "hash",
    "seed": "seed of the hash",
    "master": "master",
}


def _with_prefix(facts: EngineFacts, prefix: str) -> EngineFacts:
    found = fingerprint.parse(prefix)
    return facts._replace(prefix=prefix) if found is None else _with_fingerprint(facts, found)


def _with_fingerprint(facts: EngineFacts, found: Fingerprint) -> EngineFacts:
    return facts._replace(
        weights=found.weights,
        dtype=found.dtype,
        block_size=found.block_size,
        hash_name=found.hash_name,
        seed=found.seed,
    )


def _first(*values: object) -> object:
    return next((each for each in values if each is not None), None)


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) and (not value or not value.isascii()) else str(value)
