"""What leads to each error, with an example of its fields: ``docs/errors.md`` lists it, and a test reads every one.

``tests/test_error_causes.py`` fails for a class without a cause, and makes real as many as can be made at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """One way to an error of class ``error``."""

    error: str
    what: str
    fields: Mapping[str, object]


def _of(error: str, what: str, /, **fields: object) -> Cause:
    return Cause(error, what, fields)


NODE = "host1-a76f"
PEER = "10.0.0.2:7300"
URL = "etcd://10.0.0.1:2379"
NAME = "models/llama-3"
HOME = "/home/me/.local/state/mooncake"

CAUSES = (
    _of("MooncakeError", "a defect of ours in the agent", detail="KeyError('x')"),
    _of("BenchFailed", "a process of the bench ended", role="target", detail="it ended with status 1"),
    _of("UsageError", "arguments that do not fit together", detail="several objects cannot all be named 'x'"),
    _of("PackageMissing", "s3:// without s3fs", what="s3://", package="s3fs", install="mooncake-cli[origins]"),
    _of("AddressError", "a range that no buffer serves any more", length=4096, address=0x7F0000000000),
    _of("PortForbidden", "a low port, as another user than root", address="10.0.0.2:80", detail="Permission denied"),
    _of("PortTaken", "another program listens on the port", address=PEER, detail="Address already in use"),
    _of(
        "NoSuchAddress",
        "an address of another host, or of an interface that is down",
        address=PEER,
        detail="none has it",
    ),
    _of(
        "BadConfig",
        "a value, a key or a file of settings that is not understood",
        origin="/etc/x.toml",
        detail="bad key",
    ),
    _of("Closed", "a call on a store or engine that was closed", what="this P2PStore"),
    _of("ForkedProcess", "a store or engine used in a forked child", what="this P2PStore", pid=42),
    _of("ForkedFromEtcd", "etcd used in the child of a process that was connected to it", what=URL, pid=42),
    _of(
        "BadName", "an object's name outside the alphabet", name="a b", detail="it has a character that is not allowed"
    ),
    _of(
        "BadReference",
        "what follows '@' is no digest",
        name=NAME,
        reference=f"{NAME}@sha256:xyz",
        detail="its digest is not hexadecimal",
    ),
    _of("BadTag", "a tag outside the alphabet", tag="step 7", detail="it has a character that is not allowed"),
    _of(
        "AmbiguousDigest",
        "too little of a digest",
        name=NAME,
        found="sha256:3f786850e387550f, sha256:3f9ac1d02b6e4c77",
    ),
    _of(
        "BadSource", "PATH is a device, a pipe, or a link that leads nowhere", path="/dev/null", detail="it is a device"
    ),
    _of(
        "BadSource",
        "something in PATH cannot be registered",
        path="/data/x/a pipe",
        detail="it is a named pipe, neither a file nor a directory",
        pattern="/a pipe",
    ),
    _of("NoHome", "neither --home nor MOONCAKE_HOME nor HOME is set", detail="HOME is not set"),
    _of("SegmentNotFound", "no process has published such a segment", segment="10.0.0.2:12345", url=URL),
    _of("RemoteError", "a peer answers with an error of its own", peer=PEER, detail="it answered 500"),
    _of("RemoteError", "the same during a get, whose object is known", peer=PEER, detail="it answered 500", name=NAME),
    _of(
        "RemoteProtocolError", "what answers is no node, or one of another release", peer=PEER, detail="no status frame"
    ),
    _of(
        "PeerUnreachable",
        "its process ended, its host is down, or a firewall rejects",
        peer=PEER,
        detail="connection refused",
    ),
    _of(
        "PeerUnreachable",
        "the bench's target that --target names has ended",
        peer="10.0.0.2:15342",
        detail="connection refused",
        target="10.0.0.2:15342",
    ),
    _of(
        "PeerNameUnknown",
        "its name was mistyped, or no name server that is asked here has it",
        peer="nosuchhost:7300",
        host="nosuchhost",
        detail="name or service not known",
    ),
    _of("PeerStalled", "a firewall drops what it sends, or it is overloaded", peer=PEER, seconds=10),
    _of(
        "TransferFailed",
        "a connection breaks each time",
        peer=PEER,
        length=65536,
        address=0x7F0000000000,
        attempts=3,
        detail="connection reset by peer",
        errno=104,
    ),
    _of(
        "RangeRefused",
        "it withdrew the object a moment ago",
        peer=PEER,
        length=65536,
        address=0x7F0000000000,
        name=NAME,
    ),
    _of(
        "ChunkMismatch", "its file changed unseen, or its memory or network spoils bytes", peer=NODE, chunk=7, name=NAME
    ),
    _of("BadManifest", "it is broken, or hostile", peer=PEER, detail="a path leads outside", name=NAME),
    _of("PeerHasNot", "it withdrew the object a moment ago", peer=PEER, what=NAME, name=NAME),
    _of("PeerBusy", "more receivers than it serves at a time", peer=PEER, name=NAME),
    _of(
        "SourceChanged",
        "a file was written to while it was hashed, or since",
        path="/data/w",
        detail="it was written to",
    ),
    _of("TensorsDiffer", "the bench finds a wrong tensor", tensor="a.weight", device="cuda:1", layout="replicate"),
    _of(
        "BytesDiffer", "the bench finds a wrong byte", engine="ours", operation="read", block_size=1, offset=2, length=3
    ),
    _of(
        "MetadataUnavailable", "etcd does not run there, or a firewall is between", url=URL, detail="Connection refused"
    ),
    _of("MetadataUnhealthy", "etcd has no leader, is overloaded or damaged", url=URL, detail="no leader"),
    _of("NoEtcd", "no etcd is installed", url="(embedded etcd)", detail="there is none on this machine"),
    _of(
        "EtcdNotStarted",
        "a limit of the shell, or a disk that is full",
        url="etcd+unix:///home/ann/.local/state/mooncake/run/etcd.sock:1",
        detail="file descriptor limit of etcd process is too low; please set higher (limit 20, recommended-limit 150)",
        ended=True,
    ),
    _of("MetadataFull", "etcd has reached its quota", url=URL, detail="mvcc: database space exceeded"),
    _of(
        "GpuUnavailable",
        "a tensor on a GPU, and cuda-bindings or NVIDIA's driver is missing",
        detail="the package cuda-bindings is not installed",
        todo="install it with pip install 'mooncake-cli[cuda]', or copy the tensor to the host first (.cpu())",
    ),
    _of(
        "GpuFailed",
        "a kernel of the program went wrong, the GPU did, or memory was freed",
        device=0,
        call="cuMemcpyHtoDAsync",
        code="CUDA_ERROR_INVALID_VALUE",
        detail=" (invalid argument)",
        todo="keep the tensor, and what its memory belongs to, until the call has returned or it is unregistered",
    ),
    _of("Refused", "somebody says no, in words of their own", detail="not here"),
    _of("MetadataRefused", "a wrong user, password or certificate", url=URL, detail="invalid user ID or password"),
    _of(
        "ObjectExists",
        "the name stands for other bytes",
        name=NAME,
        difference=": 1 of 5 files and 1 of 2048 chunks differ",
    ),
    _of("DestinationExists", "something else is at DEST", path="/data/llama-3"),
    _of("DestinationExists", "another file is at DEST", path="/data/m.bin", file=True),
    _of("DestinationExists", "an earlier version is at DEST", path="/data/llama-3", version="3f786850e387"),
    _of("DestinationBusy", "another get writes there", path="/data/llama-3"),
    _of("DestinationServed", "DEST is what this node has registered", path="/data/x", root="/data/x", name=NAME),
    _of("NotReplaceable", "a mount point, or a directory of an image", path="/data", detail="it is a mount point"),
    _of("ForeignContent", "--force on a directory with other things in it", path="/data/x", name="notes.txt"),
    _of("PartChanged", "another program writes to what a get writes", path="/data/llama-3"),
    _of("ForeignFile", "somebody put a file into what a get writes", path="/data/llama-3.part/x"),
    _of("MasterIsUpstreams", "'store why' asks a mooncake_master", address="10.0.0.1:9003", what="say why"),
    _of("NodeNameTaken", "two agents were given one --node", node=NODE, address=PEER),
    _of(
        "OtherMetadata",
        "--metadata names another server than the agent's",
        home=HOME,
        theirs=URL,
        asked="etcd://b:2379",
    ),
    _of("KeyNotFound", "it was never put, was removed or evicted, or the node that had it died", key="step-7/w"),
    _of(
        "ValueUnreadable",
        "the nodes that have it died a moment ago",
        key="step-7/w",
        detail=f"{PEER}: connection refused",
    ),
    _of("ValueCorrupt", "a node's memory or network spoils bytes", key="step-7/w", detail=f"{PEER}: wrong checksum"),
    _of(
        "ValueNotWritten", "the nodes with room died a moment ago", key="step-7/w", detail=f"{PEER}: connection refused"
    ),
    _of("EngineUnavailable", "no engine runs there", address="http://10.0.0.3:8000", detail="Connection refused"),
    _of("MasterUnavailable", "no master runs there", address="10.0.0.1:50051", detail="connection refused"),
    _of(
        "MasterRefused",
        "an argument that it does not take",
        what="to remove 'x'",
        detail="somebody reads it",
        code=-706,
    ),
    _of(
        "PoolFull", "what is there is pinned or being read", what="to put 'x'", detail="no segment has room", code=-200
    ),
    _of(
        "StateUnusable",
        "no permission, no space, or a damaged file",
        path="/var/lib/mooncake/store",
        detail="no space left on device",
    ),
    _of(
        "StateOfOtherVersion",
        "a master of another version kept its state there",
        path="/var/lib/mooncake/store",
    ),
    _of(
        "JournalFailed",
        "the disk is full or fails while a master runs",
        path="/var/lib/mooncake/store",
        detail="no space left on device",
    ),
    _of("TierTaken", "two clients are to keep values in one directory", path="/mnt/nvme0/values"),
    _of(
        "TierUnusable",
        "the directory for values on disk cannot be written, or holds something else",
        path="/mnt/nvme0/values",
        detail="read-only file system",
    ),
    _of("StateTaken", "two masters are started on one directory", path="/var/lib/mooncake/store"),
    _of("KeyExists", "'store put' of a key that was put before", key="step-7/w"),
    _of("KeyBusy", "two clients put one key at once, or one died while it did", key="step-7/w"),
    _of("OtherView", "the agent runs in a container, or with PrivateTmp=", path="/tmp/x"),
    _of("AgentRunning", "'node run' where an agent runs already", home=HOME, pid=42),
    _of("SecretRefused", "another secret than the peer's, or none", peer=PEER),
    _of("ClocksDiffer", "a clock that is off by more than five minutes", peer=PEER, seconds=300),
    _of("OriginUnavailable", "an origin that does not answer", origin="https://hub.example", detail="it broke off"),
    _of("OriginUnavailable", "an S3 store that does not answer", origin="s3://bucket/key", detail="it broke off"),
    _of("OriginUnavailable", "a file system that fails", origin="file:///mnt/m.bin", detail="Input/output error"),
    _of("OriginRefused", "a bucket that may not be read", origin="s3://bucket/key", detail="Access Denied"),
    _of("OriginNotFound", "a path that leads nowhere", origin="file:///mnt/m.bin", detail="there is no such file"),
    _of(
        "OriginNotFound", "a repository that the hub has not", origin="hf://org/m", detail="there is no such repository"
    ),
    _of("OriginNotFound", "a key that a bucket has not", origin="s3://bucket/key", detail="there is no such object"),
    _of("HubUnset", "'register hf://..' without hf_upstream", origin="hf://org/m"),
    _of(
        "OriginUnsuited",
        "a web server that makes its answer as it sends it",
        origin="https://host.example/m.bin",
        detail="it does not tell how long it is",
    ),
    _of("OriginNotFound", "a server that has no such file", origin="https://host.example/m.bin", detail="404: no"),
    _of("OriginRefused", "what is gated there", origin="https://hub.example", detail="403: access is restricted"),
    _of("OriginDiffers", "an origin that sends wrong bytes", origin="https://hub.example", detail="config.json"),
    _of(
        "OriginChanged",
        "a file that is replaced while 'register https://..' reads it",
        origin="https://host.example/m.bin",
        detail='its version was "a1", and is "b2"',
    ),
    _of("HubListenRefused", "an address that others reach, without a token", address="10.0.0.1:7400"),
    _of("ListenRefused", "an address that others reach, without a secret", address="10.0.0.1"),
    _of("NothingGuards", "'metadata serve' on an address that others reach", address="10.0.0.1"),
    _of("ProxyUnguarded", "'proxy' on an address that others reach", address="10.0.0.1:8000"),
    _of("MasterUnguarded", "'store master' on an address that others reach", address="10.0.0.1:50051"),
    _of("FileChanged", "a file is written to while 'store put' reads it", path="/data/w"),
    _of("GiverUnguarded", "'store give' on an address that others reach", address="10.0.0.1"),
    _of("StorageError", "the system refuses to read or write", path="/data/w", detail="no space left on device"),
    _of(
        "StorageError",
        "something in PATH may not be read",
        path="/data/x/it's private",
        detail="permission denied",
        pattern="/it's private",
    ),
    _of("HomeOfAnother", "MOONCAKE_HOME is another user's", path="/srv/mooncake", user="user llm"),
    _of("HomeUnusable", "the directory of the agent cannot be written", path=HOME, detail="read-only file system"),
    _of(
        "TransportUnavailable", "--transport rdma without a device", transport="rdma", detail="on this host: no device"
    ),
    _of(
        "VerbsFailed",
        "a call to a device failed",
        transport="rdma",
        call="ibv_reg_mr",
        device="mlx5_0",
        detail="ENOMEM",
    ),
    _of("LockedMemoryLimit", "'ulimit -l' is too low", transport="rdma", length=1 << 20, device="mlx5_0", limit=65536),
    _of("ObjectNotFound", "nobody has published it, or its last holder left", name=NAME),
    _of("VersionNotFound", "a wrong digest, or one of a version that is forgotten", name=NAME, digest="sha256:3f78"),
    _of("TagNotFound", "a wrong tag, or one that was removed", name=NAME, tag="step-1000"),
    _of(
        "DigestOfAnother",
        "the digest of another object",
        wanted=NAME,
        digest="sha256:3f786850e387",
        name="models/llama-2",
    ),
    _of("NotHeld", "a version of which this node has nothing", name=f"{NAME}@sha256:3f786850e387"),
    _of(
        "VersionNotHeld",
        "a tag whose version others hold, or nobody",
        name=f"{NAME}:step-1000",
        digest="sha256:3f786850e387",
    ),
    _of("NodeNotFound", "a wrong name, a node that ended, or a host with several", node="host2", detail=""),
    _of(
        "CopyStays", "a copy that was registered", path="/data/llama-3", detail="it was registered: its files are yours"
    ),
    _of(
        "CopyStays",
        "a copy whose files somebody touched, linked or replaced since a get wrote them",
        path="/data/llama-3",
        detail="/data/llama-3/a.bin was touched since this agent wrote it",
    ),
    _of("LastCopy", "a copy that no other node has whole", name=NAME, path="/data/llama-3", detail=""),
    _of(
        "LastCopy",
        "a copy, while the metadata server cannot say who else has it",
        name=NAME,
        path="/data/llama-3",
        detail=f" (metadata server {URL} does not answer: Connection refused)",
    ),
    _of(
        "NotAllDeleted",
        "a file of a copy that was replaced, or a disk that failed, while the copy was being deleted",
        path="/data/llama-3",
        files=3,
        detail="/data/llama-3/a.bin is not the file that this agent wrote, or was changed since",
    ),
    _of("NotHeld", "an object that others hold", name=NAME),
    _of("NotHeld", "a name that looks like an option", name="-x"),
    _of("NotHeld", "a path that was not registered", name="/data/my models"),
    _of("PathNotFound", "a wrong path", path="/data/nothing"),
    _of("DirectoryMissing", "a get to a place in a directory that is not made yet", path="/data/my models"),
    _of("GetTimedOut", "the time that --timeout gave is over", name=NAME, time="10 min 0 s"),
    _of("NotInObject", "a path that is not in the object", name=NAME, wanted="is called 'conf.json'"),
    _of("NotInObject", "patterns that no file fits", name=NAME, wanted="is taken by --include '*.bin'"),
    _of(
        "TensorNotFound",
        "a pattern that fits no tensor's name",
        name=NAME,
        patterns="'model.layer.0.*'",
        found="291 tensors, such as 'model.layers.0.mlp.up_proj.weight'",
    ),
    _of("AgentNotRunning", "none was started, or it was stopped", home=HOME),
    _of("AgentEnded", "the last one ended itself", home=HOME, time="10:15", detail="its lease keeper does not work"),
    _of(
        "BadTensors",
        "a safetensors file, or an index of several, that was cut short, damaged, or made to deceive",
        what=f"model.safetensors of {NAME}",
        name=NAME,
        detail="tensor 'lm_head.weight' overlaps the one before it",
    ),
    _of("IntegrityError", "verify finds other bytes", path="/data/my models/w", name=NAME, detail="1 bad chunk of 3"),
    _of(
        "IntegrityError", "the same, of an object named like an option", path="/data/w", name="-x", detail="1 bad chunk"
    ),
    _of(
        "NoLivePeer",
        "its holders ended, or cannot be reached from here",
        name=NAME,
        detail="nobody who is alive holds it",
    ),
    _of("NoLivePeer", "the same, of an object named like an option", name="-x", detail="nobody who is alive holds it"),
    _of(
        "SourceSilent",
        "a firewall drops data while control goes through",
        name=NAME,
        seconds=60,
        detail="it sends nothing",
    ),
    _of("HubNotRead", "'register hf://..' of what another node read, which died", file="model.safetensors"),
    _of(
        "HolderGone",
        "the only node that had it died, or is cut off, within the last day",
        name=NAME,
        creator=NODE,
        noticed="2026-11-29 10:15:03",
    ),
    _of(
        "PeerWithdrew",
        "its files changed, or cannot be read, while others got it",
        peer=PEER,
        detail="model-1.safetensors: it was written to",
    ),
    _of("AgentStartFailed", "it ended at once without a word", detail="it ended with signal 9; its log is empty"),
    _of(
        "NodeEnded", "a part of the node does nothing but fail", task="lease keeper", failures=10, detail="KeyError: 1"
    ),
    _of("HomeElsewhere", "one home on a shared file system, named for two hosts", home=HOME, host="host2", pid=42),
    _of("AgentStarting", "etcd or its address is not there yet", home=HOME, pid=42, detail="etcd does not answer"),
    _of("HomeLost", "somebody removed it while the agent ran", home=HOME, detail="it was removed"),
    _of("AgentUnreachable", "it stands still, or has too many calls", home=HOME, detail="nothing for 30 s"),
    _of("AgentGone", "it was killed, or crashed, during a command", home=HOME),
    _of("AgentKilled", "it took more memory than its job or container may", home=HOME, group="/sys/fs/cgroup/job_1"),
    _of(
        "PartialResult",
        "some of several paths could not be registered",
        detail="2 of 3 paths could not be registered",
        todo="what stopped each is said with it, and what to do about it",
    ),
    _of("JobNotFound", "a number that no 'get --background' told, or of a job that is forgotten by now", id=3),
    _of("JobCut", "the agent was stopped, or killed, while the job ran", id=3, home=HOME),
    _of("JobCancelled", "'mooncake jobs cancel', or the call behind it", id=3),
    _of("TooManyJobs", "'get --background' for each of a great many objects", count=1000),
    _of("Interrupted", "Ctrl-C, or the agent ends", detail="the agent is ending"),
)
