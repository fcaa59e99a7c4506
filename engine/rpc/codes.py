"""The codes that a master of the pooled store answers with, and what each one says to people.

Source: upstream's ``types.h``. The numbers are the wire's; the names here are shorter.
"""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """0, or what was refused or went wrong."""

    OK = 0
    INTERNAL = -1
    BUFFER_OVERFLOW = -10
    BAD_SHARD = -100
    NO_SEGMENT = -101
    SEGMENT_EXISTS = -102
    CLIENT_UNKNOWN = -103
    NO_SPACE = -200
    BAD_VERSION = -300
    BAD_KEY = -400
    WRITE_FAILED = -500
    BAD_PARAMS = -600
    ILLEGAL_CLIENT = -601
    BAD_WRITE = -700
    BAD_READ = -701
    BAD_REPLICA = -702
    NOT_READY = -703
    NOT_FOUND = -704
    EXISTS = -705
    LEASED = -706
    LEASE_EXPIRED = -707
    HAS_TASK = -708
    NO_TASK_FOR_KEY = -709
    NO_REPLICA = -710
    REPLICA_EXISTS = -711
    REPLICA_GONE = -712
    NOT_LOCAL = -713
    BUSY = -714
    TRANSFER_FAILED = -800
    CHECKSUM = -801
    RPC_FAILED = -900
    RPC_TIMEOUT = -901
    ETCD_FAILED = -1000
    ETCD_NO_KEY = -1001
    ETCD_TRANSACTION = -1002
    ETCD_CANCELLED = -1003
    OPLOG_NOT_FOUND = -1004
    LEASE_FAILED = -1005
    LEASE_NOT_FOUND = -1006
    OPLOG_BEHIND = -1007
    BAD_STATUS = -1010
    BAD_MODE = -1011
    NOT_SUPPORTED = -1012
    FILE_NOT_FOUND = -1100
    FILE_OPEN = -1101
    FILE_READ = -1102
    FILE_WRITE = -1103
    FILE_BUFFER = -1104
    FILE_LOCK = -1105
    FILE_HANDLE = -1106
    NO_BUCKET = -1200
    BUCKET_EXISTS = -1201
    BUCKET_FULL = -1202
    TOO_MANY_KEYS = -1203
    OFFLOAD_DISABLED = -1300
    OFFLOAD_FAILED = -1301
    NO_TASK = -1400
    TOO_MANY_TASKS = -1401
    NO_JOB = -1402
    SERIALIZE_UNSUPPORTED = -1500
    SERIALIZE_FAILED = -1501
    DESERIALIZE_FAILED = -1502
    PERSIST_FAILED = -1503
    DFS_TIMEOUT = -1600
    DFS_UNAVAILABLE = -1601
    DFS_QUOTA = -1602
    DFS_DENIED = -1603
    DFS_STALE = -1604
    DFS_PARTIAL = -1605
    QUOTA = -1700
    NO_TENANT = -1701
    TENANT_NOT_EMPTY = -1702

    @property
    def sentence(self) -> str:
        """What it says to people: a clause to put behind what was tried."""
        return _SENTENCES[self]

    @classmethod
    def of(cls, number: int) -> Code:
        """The code of a number from the wire; one that nobody knows is taken for an internal error there."""
        return _BY_NUMBER.get(number, cls.INTERNAL)


_SENTENCES: dict[Code, str] = {
    Code.OK: "done",
    Code.INTERNAL: "the master failed, and did not say how",
    Code.BUFFER_OVERFLOW: "the buffer is too small for the value",
    Code.BAD_SHARD: "the master has no such shard",
    Code.NO_SEGMENT: "no client offers memory, or not the segment that was named",
    Code.SEGMENT_EXISTS: "that segment is mounted already",
    Code.CLIENT_UNKNOWN: "the master does not know this client",
    Code.NO_SPACE: "no segment has room for the value, and nothing more can be evicted",
    Code.BAD_VERSION: "client and master are of versions that do not work together",
    Code.BAD_KEY: "the key is not allowed",
    Code.WRITE_FAILED: "the value could not be written",
    Code.BAD_PARAMS: "an argument is not allowed",
    Code.ILLEGAL_CLIENT: "another client started this, and only that one may go on with it",
    Code.BAD_WRITE: "the value cannot be written now",
    Code.BAD_READ: "the value cannot be read now",
    Code.BAD_REPLICA: "the replica cannot be used for that",
    Code.NOT_READY: "the value is still being written",
    Code.NOT_FOUND: "there is no value under this key",
    Code.EXISTS: "there is a value under this key already",
    Code.LEASED: "somebody reads the value, or did a moment ago",
    Code.LEASE_EXPIRED: "reading took longer than the master kept the value for it",
    Code.HAS_TASK: "a replica of the value is being copied or moved",
    Code.NO_TASK_FOR_KEY: "no replica of the value is being copied or moved",
    Code.NO_REPLICA: "the value has no replica there",
    Code.REPLICA_EXISTS: "the value has a replica there already",
    Code.REPLICA_GONE: "the replica is gone",
    Code.NOT_LOCAL: "the replica is not in this client's memory",
    Code.BUSY: "a replica of the value is in use",
    Code.TRANSFER_FAILED: "the bytes could not be moved",
    Code.CHECKSUM: "the bytes are not those that were put",
    Code.RPC_FAILED: "the master cannot be reached, or did not understand the call",
    Code.RPC_TIMEOUT: "the master did not answer in time",
    Code.ETCD_FAILED: "etcd refused or failed",
    Code.ETCD_NO_KEY: "etcd has no such key",
    Code.ETCD_TRANSACTION: "somebody else changed it in etcd meanwhile",
    Code.ETCD_CANCELLED: "the call to etcd was cancelled",
    Code.OPLOG_NOT_FOUND: "the operation log has no such entry",
    Code.LEASE_FAILED: "the lease of the leader could not be taken or kept",
    Code.LEASE_NOT_FOUND: "there is no lease of a leader",
    Code.OPLOG_BEHIND: "the standby has not caught up with the operation log",
    Code.BAD_STATUS: "it cannot be done in the present state",
    Code.BAD_MODE: "it cannot be done in this mode",
    Code.NOT_SUPPORTED: "it is not supported in this mode",
    Code.FILE_NOT_FOUND: "the file is not there",
    Code.FILE_OPEN: "the file cannot be opened",
    Code.FILE_READ: "the file cannot be read",
    Code.FILE_WRITE: "the file cannot be written",
    Code.FILE_BUFFER: "the buffer for the file cannot be used",
    Code.FILE_LOCK: "the file cannot be locked",
    Code.FILE_HANDLE: "the file is not open",
    Code.NO_BUCKET: "there is no such bucket on the disk",
    Code.BUCKET_EXISTS: "that bucket is on the disk already",
    Code.BUCKET_FULL: "the bucket on the disk takes no more keys",
    Code.TOO_MANY_KEYS: "the disk tier takes no more keys",
    Code.OFFLOAD_DISABLED: "the master does not move values to disk",
    Code.OFFLOAD_FAILED: "the value cannot be moved to disk now",
    Code.NO_TASK: "there is no such task",
    Code.TOO_MANY_TASKS: "too many tasks are waiting",
    Code.NO_JOB: "there is no such job",
    Code.SERIALIZE_UNSUPPORTED: "it cannot be written as bytes",
    Code.SERIALIZE_FAILED: "it could not be written as bytes",
    Code.DESERIALIZE_FAILED: "the bytes could not be understood",
    Code.PERSIST_FAILED: "it could not be kept on disk",
    Code.DFS_TIMEOUT: "the distributed file system did not answer in time",
    Code.DFS_UNAVAILABLE: "the distributed file system does not answer",
    Code.DFS_QUOTA: "the quota on the distributed file system is used up",
    Code.DFS_DENIED: "the distributed file system forbids it",
    Code.DFS_STALE: "the file on the distributed file system was replaced",
    Code.DFS_PARTIAL: "only a part was written to the distributed file system",
    Code.QUOTA: "the tenant's quota is used up, or the master takes no more keys, tenants or clients",
    Code.NO_TENANT: "no quota is set for the tenant, and it needs one",
    Code.TENANT_NOT_EMPTY: "the tenant still has values",
}

_BY_NUMBER: dict[int, Code] = {int(code): code for code in Code}
