"""The whole error tree, from the engine's root down to the store's leaves.

::

    MooncakeError                     1   a defect of ours
    ├── AgentStartFailed              1   an agent started in the background ended, or never answered
    ├── NodeEnded                     1   a node ended itself, for it could not go on
    ├── BenchFailed                   1   (engine) a process of the bench failed
    ├── UsageError                    2   the caller's fault
    │   ├── AddressError              2   (engine) a range outside every buffer
    │   ├── PortTaken                 2   (engine) somebody else listens on a port of ours
    │   ├── PortForbidden             2   (engine) a port on which this user may not listen
    │   ├── NoSuchAddress             2   (engine) this host has no such address, or not yet
    │   ├── BadName                   2   an object or node name that is not allowed
    │   │   ├── BadReference          2   what follows an object's name is no digest
    │   │   └── BadTag                2   a tag that is not allowed
    │   ├── AmbiguousDigest           2   several versions' digests begin so
    │   ├── BadConfig                 2   (engine) a setting that is not understood
    │   ├── NoHome                    2   there is no directory for the agent's home
    │   ├── BadSource                 2   a path that cannot be registered
    │   ├── PackageMissing            2   (engine) a Python package is not installed
    │   ├── HubUnset                  2   nobody has read that repository, and this agent reads no hub
    │   ├── Closed                    2   (engine) a call on something that was closed
    │   └── ForkedProcess             2   (engine) a call on something of our parent process
    │       └── ForkedFromEtcd        2   (engine) etcd, where that was connected to it
    ├── ObjectNotFound                3   no such object
    │   ├── VersionNotFound           3   no such version of it
    │   └── TagNotFound               3   no such tag of it
    ├── DigestOfAnother               3   it is another object's
    ├── NotHeld                       3   this node holds nothing of it
    │   └── VersionNotHeld            3   of the version that a tag stands for
    ├── NodeNotFound                  3   no such node
    ├── PathNotFound                  3   no such file
    │   └── DirectoryMissing          3   nor directory, in which something is to be put
    ├── NotInObject                   3   the object has no such file
    ├── TensorNotFound                3   the object has no tensor of such a name
    ├── OriginNotFound                3   an origin outside the cluster has no such thing
    ├── SegmentNotFound               3   (engine) the metadata server knows no such segment
    ├── JobNotFound                   3   no such job
    ├── AgentNotRunning               3   no agent serves this home
    │   └── AgentEnded                3   and the last one ended itself
    ├── IntegrityError                4   bytes differ from what was registered
    ├── OriginDiffers                 4   an origin sent something else than it says it has
    ├── OriginChanged                 4   an origin's file became another while it was read
    ├── BadTensors                    4   a file whose word about its tensors cannot be
    ├── SourceChanged                 4   (engine) a registered file changed
    ├── BytesDiffer                   4   (engine) the bench moved bytes and found others
    ├── TensorsDiffer                 4   the bench compared tensors on GPUs and found other bytes
    ├── RemoteError                   5   a peer's fault: the only branch that may ban a peer
    │   ├── RemoteProtocolError       5   (engine)
    │   ├── PeerUnreachable           5   (engine)
    │   │   └── PeerNameUnknown       5   its host's name leads to no address
    │   ├── PeerStalled               5   (engine)
    │   ├── ChunkMismatch             4   a chunk whose hash is wrong
    │   ├── BadManifest               4   a manifest that is not what its digest says, or unsafe
    │   ├── TransferFailed            5   (engine)
    │   ├── PeerHasNot                5   a peer that holds it no more
    │   ├── PeerBusy                  5   a peer that is busy
    │   ├── PeerWithdrew              5   a peer that holds it no more, and says why
    │   └── RangeRefused              7   (engine)
    ├── NoLivePeer                    5   nobody who holds the object answers
    │   ├── SourceSilent              5   who holds the object is there, and silent
    │   ├── HolderGone                5   the object was there, and all who held it died
    │   └── HubNotRead                5   a file of the hub's, and an agent that reads no hub
    ├── OriginUnavailable             5   an origin outside the cluster does not answer
    ├── GetTimedOut                   5   a get was to take no longer
    ├── AgentUnreachable              5   the agent is there and does not answer
    │   ├── AgentStarting             5   it does not listen yet
    │   └── AgentGone                 5   it ended while it was at work for a command
    │       ├── AgentKilled           5   for want of memory
    │       └── JobCut                5   while a get in the background ran
    ├── MetadataUnavailable           6   (engine) the metadata server does not answer
    │   ├── MetadataUnhealthy         6   (engine) it answers that it cannot do it now
    │   ├── MetadataFull              8   (engine) it has no space left, and takes no writes
    │   ├── NoEtcd                    6   an agent was given none, and has no etcd to start
    │   └── EtcdNotStarted            6   the etcd that an agent starts for itself does not come up
    ├── Refused                       7   (engine) somebody said no (base class)
    │   ├── MetadataRefused           7   (engine) the metadata server refused us
    │   ├── ObjectExists              7   the name is taken by other content
    │   ├── CopyStays                 7   a copy's files are not deleted
    │   ├── LastCopy                  7   nor are those of the only whole copy
    │   ├── DestinationExists         7   something else is at the destination
    │   ├── ForeignContent            7   what is there is no earlier version
    │   ├── NotReplaceable            7   we cannot replace what is there
    │   ├── DestinationServed         7   what is there is served by this node
    │   ├── DestinationBusy           7   another get writes there
    │   ├── ForeignFile               7   something foreign lies in what a get writes
    │   ├── NodeNameTaken             7   another node has this node's name
    │   ├── OtherMetadata             7   the agent uses another metadata server than was asked for
    │   ├── OtherView                 7   the agent sees something else at a path
    │   ├── AgentRunning              7   one agent a home
    │   ├── TooManyJobs               7   the agent has as many jobs as it takes
    │   ├── HomeElsewhere             7   the agent of this home runs on another host
    │   ├── SecretRefused             7   the cluster secret does not match
    │   │   └── ClocksDiffer          7   it does, and the clocks do not
    │   ├── OriginRefused             7   an origin outside the cluster said no
    │   │   └── OriginUnsuited        7   and it cannot be read by ranges
    │   └── ListenRefused             7   an open address without a secret
    │       ├── HubListenRefused      7   the same for the hub's interface, without a token
    │       └── NothingGuards         7   the same for a server that knows no secret
    ├── StorageError                  8   (engine) no space, or no permission
    │   ├── HomeUnusable              8   the agent's home cannot be made or used
    │   │   └── HomeOfAnother         8   since it belongs to another user
    │   └── HomeLost                  8   an agent's home was removed or replaced
    ├── TransportUnavailable          9   (engine)
    │   ├── VerbsFailed               9   (engine) a call to an RDMA device failed
    │   └── LockedMemoryLimit         9   (engine) memory could not be pinned
    ├── GpuUnavailable               11   (engine) memory of GPUs cannot be used here
    ├── GpuFailed                    11   (engine) CUDA refused or failed a call
    ├── PartialResult                10   some of it was done
    ├── NotAllDeleted                10   some files of a copy were deleted, and the others not
    ├── PartChanged                  10   another program wrote to what a get was writing
    └── Interrupted                 130   Ctrl-C, or the client went away
        └── JobCancelled            130   a get in the background was cancelled

``to_wire`` and ``from_wire`` carry an error over the control plane. Import all of it from here.
"""

from __future__ import annotations

from engine.errors import (
    AddressError,
    BadConfig,
    BenchFailed,
    BytesDiffer,
    Closed,
    ForkedFromEtcd,
    ForkedProcess,
    GpuFailed,
    GpuUnavailable,
    LockedMemoryLimit,
    MetadataFull,
    MetadataRefused,
    MetadataUnavailable,
    MetadataUnhealthy,
    MooncakeError,
    NoSuchAddress,
    PackageMissing,
    PeerStalled,
    PeerUnreachable,
    PortForbidden,
    PortTaken,
    RangeRefused,
    Refused,
    RemoteError,
    RemoteProtocolError,
    SegmentNotFound,
    SourceChanged,
    StorageError,
    TransferFailed,
    TransportUnavailable,
    UsageError,
    VerbsFailed,
)
from p2pstore.errors.nodes import (
    AgentEnded,
    AgentGone,
    AgentKilled,
    AgentNotRunning,
    AgentRunning,
    AgentStartFailed,
    AgentStarting,
    AgentUnreachable,
    ClocksDiffer,
    EtcdNotStarted,
    HomeElsewhere,
    HomeLost,
    HomeOfAnother,
    HomeUnusable,
    HubListenRefused,
    JobCut,
    JobNotFound,
    ListenRefused,
    NodeEnded,
    NodeNameTaken,
    NoEtcd,
    NoHome,
    NothingGuards,
    OtherMetadata,
    OtherView,
    SecretRefused,
    TooManyJobs,
)
from p2pstore.errors.objects import (
    AmbiguousDigest,
    BadName,
    BadReference,
    BadSource,
    BadTag,
    BadTensors,
    CopyStays,
    DigestOfAnother,
    DirectoryMissing,
    IntegrityError,
    LastCopy,
    NodeNotFound,
    NotAllDeleted,
    NotHeld,
    NotInObject,
    ObjectExists,
    ObjectNotFound,
    PartialResult,
    PathNotFound,
    TagNotFound,
    TensorNotFound,
    VersionNotFound,
    VersionNotHeld,
)
from p2pstore.errors.origins import (
    HubUnset,
    OriginChanged,
    OriginDiffers,
    OriginNotFound,
    OriginRefused,
    OriginUnavailable,
    OriginUnsuited,
)
from p2pstore.errors.pulls import (
    BadManifest,
    ChunkMismatch,
    DestinationBusy,
    DestinationExists,
    DestinationServed,
    ForeignContent,
    ForeignFile,
    GetTimedOut,
    HolderGone,
    HubNotRead,
    Interrupted,
    JobCancelled,
    NoLivePeer,
    NotReplaceable,
    PartChanged,
    PeerBusy,
    PeerHasNot,
    PeerNameUnknown,
    PeerWithdrew,
    SourceSilent,
    TensorsDiffer,
)
from p2pstore.errors.wire import all_errors, from_wire, to_wire

__all__ = [
    "AddressError",
    "AgentEnded",
    "AgentGone",
    "AgentKilled",
    "AgentNotRunning",
    "AgentRunning",
    "AgentStartFailed",
    "AgentStarting",
    "AgentUnreachable",
    "AmbiguousDigest",
    "BadConfig",
    "BadManifest",
    "BadName",
    "BadReference",
    "BadSource",
    "BadTag",
    "BadTensors",
    "BenchFailed",
    "BytesDiffer",
    "ChunkMismatch",
    "ClocksDiffer",
    "Closed",
    "CopyStays",
    "DestinationBusy",
    "DestinationExists",
    "DestinationServed",
    "DigestOfAnother",
    "DirectoryMissing",
    "EtcdNotStarted",
    "ForeignContent",
    "ForeignFile",
    "ForkedFromEtcd",
    "ForkedProcess",
    "GetTimedOut",
    "GpuFailed",
    "GpuUnavailable",
    "HolderGone",
    "HomeElsewhere",
    "HomeLost",
    "HomeOfAnother",
    "HomeUnusable",
    "HubListenRefused",
    "HubNotRead",
    "HubUnset",
    "IntegrityError",
    "Interrupted",
    "JobCancelled",
    "JobCut",
    "JobNotFound",
    "LastCopy",
    "ListenRefused",
    "LockedMemoryLimit",
    "MetadataFull",
    "MetadataRefused",
    "MetadataUnavailable",
    "MetadataUnhealthy",
    "MooncakeError",
    "NoEtcd",
    "NoHome",
    "NoLivePeer",
    "NoSuchAddress",
    "NodeEnded",
    "NodeNameTaken",
    "NodeNotFound",
    "NotAllDeleted",
    "NotHeld",
    "NotInObject",
    "NotReplaceable",
    "NothingGuards",
    "ObjectExists",
    "ObjectNotFound",
    "OriginChanged",
    "OriginDiffers",
    "OriginNotFound",
    "OriginRefused",
    "OriginUnavailable",
    "OriginUnsuited",
    "OtherMetadata",
    "OtherView",
    "PackageMissing",
    "PartChanged",
    "PartialResult",
    "PathNotFound",
    "PeerBusy",
    "PeerHasNot",
    "PeerNameUnknown",
    "PeerStalled",
    "PeerUnreachable",
    "PeerWithdrew",
    "PortForbidden",
    "PortTaken",
    "RangeRefused",
    "Refused",
    "RemoteError",
    "RemoteProtocolError",
    "SecretRefused",
    "SegmentNotFound",
    "SourceChanged",
    "SourceSilent",
    "StorageError",
    "TagNotFound",
    "TensorNotFound",
    "TensorsDiffer",
    "TooManyJobs",
    "TransferFailed",
    "TransportUnavailable",
    "UsageError",
    "VerbsFailed",
    "VersionNotFound",
    "VersionNotHeld",
    "all_errors",
    "from_wire",
    "to_wire",
]
