"""Reading what any etcd holds of Mooncake, ours and upstream's: the decoding behind ``mooncake etcd inspect``."""

from __future__ import annotations

from p2pstore.inspect.collect import collect, collect_url
from p2pstore.inspect.reader import DEFAULT_PREFIXES, inspect, inspect_url
from p2pstore.inspect.tree import Tree

__all__ = ["DEFAULT_PREFIXES", "Tree", "collect", "collect_url", "inspect", "inspect_url"]
