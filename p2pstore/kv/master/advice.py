"""What to do about each code that a master refuses a call with, and each reason for which it ends a connection."""

from __future__ import annotations

from typing import NamedTuple

from engine.rpc.codes import Code
from p2pstore.kv.master.limits import FRAME_S, MAX_CONNECTIONS, UNSENT_S
from p2pstore.kv.master.long_calls import MAX_LONG
from p2pstore.kv.pool.settings import MAX_INDEX_BYTES
from p2pstore.objects.units import format_size

NOT_KEPT = "make room in the directory of the master's --state, or mend the disk; it goes on by itself then"

MORE_KEYS = (
    "raise --max-keys of the master; where it has fewer keys than that, its index takes all the "
    f"{format_size(MAX_INDEX_BYTES)} that it may, and shorter keys make room"
)
"""What to do where the index is full: of the keys' number, or of their characters."""

ADVICE = {
    Code.INTERNAL: "the master's log says what failed; report it as a bug",
    Code.NO_SPACE: "'mooncake store status' shows who gives memory, and how full it is",
    Code.NO_SEGMENT: "start a client with a global_segment_size above 0, or take the name out of preferred_segment",
    Code.SEGMENT_EXISTS: "the same process mounted other memory under that id, or in the same place: give each process "
    "a store of its own, and memory to the pool once",
    Code.CLIENT_UNKNOWN: "it was taken for dead, and comes back by itself; --client-ttl of the master says when",
    Code.BAD_VERSION: "use one version of Mooncake on both sides, or report the call as a bug",
    Code.BAD_KEY: "see what the keys look like; they must not be empty",
    Code.BAD_PARAMS: "empty keys and values, batches of unequal lengths, a replica_num of 0, and patterns that are "
    "none, are slow or find too much are refused so",
    Code.BAD_WRITE: "the put that it ends had ended, or was given up meanwhile: see whether its client stood "
    "still, and --put-discard of the master",
    Code.ILLEGAL_CLIENT: "one client began a put and another ended it: give each process a store of its own",
    Code.NOT_READY: "another client writes the same key; what is being written cannot be read yet",
    Code.LEASED: "wait until the lease is over, or remove with --force",
    Code.HAS_TASK: "try again once the replica has been copied or moved",
    Code.NO_TASK_FOR_KEY: "the copy or move was given up meanwhile, or never begun: begin it anew",
    Code.NO_REPLICA: "the value lies in other segments: 'mooncake store info KEY' shows in which",
    Code.REPLICA_GONE: "the memory that was to be written to left the pool meanwhile: put the value, or copy it, again",
    Code.BUSY: "somebody uses the replica now: try again",
    Code.TRANSFER_FAILED: "see whether this client reaches the data port of the client that holds the value",
    Code.BAD_STATUS: "the segment is being unmounted or emptied, or its client is silent; 'mooncake store status' "
    "shows which",
    Code.BAD_MODE: "it belongs to what this master does not have (NVMe over Fabrics), or to tenants that are not kept "
    "apart without --tenants",
    Code.DFS_UNAVAILABLE: "this master keeps no copies in a distributed file system: put with a dfs_replica_num of 0",
    Code.OFFLOAD_DISABLED: "start the master with --offload to have values on its clients' disks",
    Code.NO_TASK: "tasks are forgotten some time after their end, and when the master restarts: begin it anew",
    Code.TOO_MANY_TASKS: "wait until some of the copies and moves have ended",
    Code.NO_JOB: "drain jobs are forgotten some time after their end, and when the master restarts: begin it anew",
    Code.PERSIST_FAILED: NOT_KEPT,
    Code.QUOTA: "remove something of the tenant's, or raise its quota (--tenant-quotas of the master, or PUT "
    "/api/v1/tenant_quotas on its metrics port while it runs); where that is not used up, the master has as many keys "
    f"as it takes: {MORE_KEYS}",
}
"""What to do about the codes that clients get. A miss (-704) and a put of what is there (-705) are no failures."""


class Ended(NamedTuple):
    """A reason for which a client is turned away: what to say of it behind its name, and what to do."""

    text: str
    advice: str


ENDED = {
    "not-allowed": Ended(
        "is not among the networks that may call this master, which closes its connections at once",
        "add its network to --allow of the master",
    ),
    "too-many": Ended(
        f"was cut off to make room: {MAX_CONNECTIONS:,} connections were open, and this was one of those over "
        "which nothing had come for longest",
        "look for a program that opens connections without end: 'mooncake store status' shows who calls",
    ),
    "slow-call": Ended(
        f"was cut off: a call of it had not come whole in {FRAME_S:g} s",
        "see whether its process stands still, or the network between loses what is sent",
    ),
    "unread": Ended(
        f"was cut off: it had not read its answers for {UNSENT_S:g} s",
        "see whether its process stands still, or the network between loses what is sent",
    ),
    "crowded": Ended(
        f"asked to go through all keys while {MAX_LONG} such calls were under way, and was refused",
        "let fewer clients use patterns and remove_all at the same time",
    ),
    "large-calls": Ended(
        "was cut off: calls that had not come whole took all the memory that there is for them, and its own the most",
        "let it ask for fewer keys in one call",
    ),
    "defect": Ended("made a call at which the master failed", "the master's log says what failed; report it as a bug"),
}
"""By the word for scripts."""
