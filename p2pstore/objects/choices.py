"""What can be chosen for an object: chunk size and hash. It imports nothing, so that help texts need not wait."""

from __future__ import annotations

MIN_CHUNK_SIZE = 1 << 20
"""Bytes; fewer would cost a hash, a message and an entry in the manifest for too little."""

MAX_CHUNK_SIZE = 64 << 20
"""Bytes; more would leave a swarm too few to spread."""

DIGEST_BYTES = {"xxh3_128": 16, "blake3": 32}
"""The hashes that a manifest may name, with the length of their digests."""

HASHES = tuple(DIGEST_BYTES)
DEFAULT_HASH = "xxh3_128"
