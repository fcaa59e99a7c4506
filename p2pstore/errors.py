"""The whole error tree, from the engine's root down to the store's leaves.

::

    MooncakeError                     1   a defect of ours
    ├── AgentStartFailed              1   an agent started in the background ended, or never answered
    ├── NodeEnded                     1   a node ended itself, for it could not go on
    ├── BenchFailed                   1   (engine) a process of the bench failed
    ├── UsageError                    2   the caller's fault
    │   ├── AddressError              2   (engine) a range outside every buffer
    │   ├── PortTaken                 2   (engine) somebody else listens on a port of ours
    │   ├── NoSuchAddress             2   (engine) this host has no such address, or not yet
    │   ├── BadName                   2   an object or node name that is not allowed
    │   ├── BadConfig                 2   (engine) a setting that is not understood
    │   ├── NoHome                    2   there is no directory for the agent's home
    │   ├── BadSource                 2   a path that cannot be registered
    │   ├── Closed                    2   (engine) a call on something that was closed
    │   └── ForkedProcess             2   (engine) a call on something of our parent process
    │       └── ForkedFromEtcd        2   (engine) etcd, where that was connected to it
    ├── ObjectNotFound                3   no such object
    ├── NotHeld                       3   this node holds nothing of it
    ├── NodeNotFound                  3   no such node
    ├── PathNotFound                  3   no such file
    ├── NotInObject                   3   the object has no such file
    ├── TensorNotFound                3   the object has no tensor of such a name
    ├── SegmentNotFound               3   (engine) the metadata server knows no such segment
    ├── AgentNotRunning               3   no agent serves this home
    │   └── AgentEnded                3   and the last one ended itself
    ├── IntegrityError                4   bytes differ from what was registered
    ├── BadTensors                    4   a file whose word about its tensors cannot be
    ├── SourceChanged                 4   (engine) a registered file changed
    ├── BytesDiffer                   4   (engine) the bench moved bytes and found others
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
    │   └── HolderGone                5   the object was there, and all who held it died
    ├── GetTimedOut                   5   a get was to take no longer
    ├── AgentUnreachable              5   the agent is there and does not answer
    │   ├── AgentStarting             5   it does not listen yet
    │   └── AgentGone                 5   it ended while it was at work for a command
    │       └── AgentKilled           5   for want of memory
    ├── MetadataUnavailable           6   (engine) the metadata server does not answer
    │   ├── MetadataUnhealthy         6   (engine) it answers that it cannot do it now
    │   └── MetadataFull              8   (engine) it has no space left, and takes no writes
    ├── Refused                       7   (engine) somebody said no (base class)
    │   ├── MetadataRefused           7   (engine) the metadata server refused us
    │   ├── ObjectExists              7   the name is taken by other content
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
    │   ├── HomeElsewhere             7   the agent of this home runs on another host
    │   ├── SecretRefused             7   the cluster secret does not match
    │   │   └── ClocksDiffer          7   it does, and the clocks do not
    │   └── ListenRefused             7   an open address without a secret
    │       └── NothingGuards         7   the same for a server that knows no secret
    ├── StorageError                  8   (engine) no space, or no permission
    │   ├── HomeUnusable              8   the agent's home cannot be made or used
    │   └── HomeLost                  8   an agent's home was removed or replaced
    ├── TransportUnavailable          9   (engine)
    │   ├── VerbsFailed               9   (engine) a call to an RDMA device failed
    │   └── LockedMemoryLimit         9   (engine) memory could not be pinned
    ├── GpuUnavailable               11   (engine) memory of GPUs cannot be used here
    ├── GpuFailed                    11   (engine) CUDA refused or failed a call
    ├── PartialResult                10   some of it was done
    ├── PartChanged                  10   another program wrote to what a get was writing
    └── Interrupted                 130   Ctrl-C, or the client went away

``to_wire`` and ``from_wire`` carry an error over the control plane.
"""

from __future__ import annotations

from typing import Any

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
    PeerStalled,
    PeerUnreachable,
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
    "BadConfig",
    "BadManifest",
    "BadName",
    "BadSource",
    "BadTensors",
    "BenchFailed",
    "BytesDiffer",
    "ChunkMismatch",
    "ClocksDiffer",
    "Closed",
    "DestinationBusy",
    "DestinationExists",
    "DestinationServed",
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
    "HomeUnusable",
    "IntegrityError",
    "Interrupted",
    "ListenRefused",
    "LockedMemoryLimit",
    "MetadataFull",
    "MetadataRefused",
    "MetadataUnavailable",
    "MetadataUnhealthy",
    "MooncakeError",
    "NoHome",
    "NoLivePeer",
    "NoSuchAddress",
    "NodeEnded",
    "NodeNameTaken",
    "NodeNotFound",
    "NotHeld",
    "NotInObject",
    "NotReplaceable",
    "NothingGuards",
    "ObjectExists",
    "ObjectNotFound",
    "OtherMetadata",
    "OtherView",
    "PartChanged",
    "PartialResult",
    "PathNotFound",
    "PeerBusy",
    "PeerHasNot",
    "PeerNameUnknown",
    "PeerStalled",
    "PeerUnreachable",
    "PeerWithdrew",
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
    "TensorNotFound",
    "TransferFailed",
    "TransportUnavailable",
    "UsageError",
    "VerbsFailed",
    "all_errors",
    "from_wire",
    "to_wire",
]


class BadName(UsageError):
    """An object or node name outside the alphabet."""

    sentence = "bad name {name!r}: {detail}"
    advice = "names are made of letters, digits and . _ - /, with no empty part and no '..', at most 255 bytes"


class BadSource(UsageError):
    """A path that cannot be registered as it is."""

    sentence = "{path} cannot be registered: {detail}"
    advice = ""
    advice_inside = "leave it out with --exclude {pattern!q}"
    """Where it is something in a directory: ``pattern`` is given, too."""

    @property
    def hint(self) -> str:
        """See ``MooncakeError.hint``."""
        return self.filled(self.advice_inside) if "pattern" in self.fields else super().hint


class NoHome(UsageError):
    """Nothing says where the agent's home is to be."""

    sentence = "there is no directory for the agent: {detail}"
    advice = "name one with --home DIR or MOONCAKE_HOME, or set HOME"


class HomeUnusable(StorageError):
    """The agent's home, or what lies in it, cannot be made, written or read."""

    sentence = "the agent's home cannot be used: {path}: {detail}"
    advice = "mend that, or name another directory with --home DIR or MOONCAKE_HOME"


class HomeLost(StorageError):
    """An agent's home was removed or replaced, or its file system went away: nobody could reach the agent any more."""

    sentence = "the agent ended, since its home {home} is gone: {detail}"
    advice = "start another with 'mooncake node start'; what it had registered is to be registered again"


class ObjectNotFound(MooncakeError):
    """No object has this name."""

    exit_code = 3
    sentence = "no object is named {name!r}"
    advice = "run 'mooncake list' to see what there is"


class NotHeld(MooncakeError):
    """This node holds nothing of the object."""

    exit_code = 3
    sentence = "this node holds nothing named {name!r}"
    advice = "run 'mooncake info {name!w}' to see who holds it"
    advice_path = "run 'mooncake register {name!w}' to publish what lies there, or name what was registered"
    """Where ``name`` is a path."""

    @property
    def hint(self) -> str:
        """See ``MooncakeError.hint``."""
        return self.filled(self.advice_path) if str(self.fields["name"]).startswith("/") else super().hint


class NodeNotFound(MooncakeError):
    """No live node is called so, or several may be meant."""

    exit_code = 3
    sentence = "no live node is named {node!r}{detail}"
    advice = "run 'mooncake etcd inspect' to see the nodes that there are, or name one by its address, HOST:PORT"


class PathNotFound(MooncakeError):
    """A path of the user's does not exist."""

    exit_code = 3
    sentence = "{path} does not exist"
    advice = "check the path"


class NotInObject(MooncakeError):
    """An object has no such file."""

    exit_code = 3
    sentence = "nothing in {name} {wanted}"
    advice = "run 'mooncake info -v {name!w}' to see its files"


class TensorNotFound(MooncakeError):
    """An object has tensors, and none that is wanted."""

    exit_code = 3
    sentence = "{name} has no tensor that fits {patterns}; it has {found}"
    advice = "check the pattern: '*' stands for any text, and quotes keep the shell from it"


class AgentNotRunning(MooncakeError):
    """No agent serves this home."""

    exit_code = 3
    sentence = "no agent runs in {home}"
    advice = "run 'mooncake node start'"


class AgentEnded(AgentNotRunning):
    """No agent serves this home, because the last one could not go on."""

    sentence = "no agent runs in {home} since {time}: {detail}"
    advice = "run 'mooncake node logs' to see more, and 'mooncake node start' to start another"


class IntegrityError(MooncakeError):
    """Bytes on this node differ from what was registered."""

    exit_code = 4
    sentence = "{path} differs from what was registered: {detail}"
    advice = (
        "run 'mooncake get --force {name!w} {path!q}' where another node has it: what is right is kept; or publish "
        "what is there now with 'mooncake register --force --name={name!q} {path!q}'"
    )


class BadTensors(MooncakeError):
    """A file of an object, verified to be what was registered, is no safetensors file, or no index of such."""

    exit_code = 4
    sentence = "{what} cannot be read for tensors: {detail}"
    advice = "it was registered so: bring all of it with 'mooncake get {name!w} DEST', and look at what wrote that file"


class ChunkMismatch(RemoteError):
    """A peer sent a chunk whose hash is wrong."""

    exit_code = 4
    sentence = "peer {peer} sent wrong bytes for chunk {chunk}"


class BadManifest(RemoteError):
    """A manifest that does not parse, does not match its digest, or names paths outside the destination."""

    exit_code = 4
    sentence = "peer {peer} sent a bad manifest: {detail}"


class PeerNameUnknown(PeerUnreachable):
    """A peer was named by a host's name, and nobody knows an address of it. ``host`` is that name."""

    sentence = "peer {peer} cannot be reached: no address is known for {host!r}: {detail}"
    advice = "check the name; 'getent hosts {host!q}' shows what this host knows of it"
    advice_object = f"{advice}, and 'mooncake info {{name!w}}' who else holds the object"


class PeerHasNot(RemoteError):
    """A peer answers, and no longer holds the object."""

    sentence = "peer {peer} does not hold {what}"


class PeerBusy(RemoteError):
    """A peer is serving as many receivers as it can; it may have fewer soon."""

    sentence = "peer {peer} is serving as many receivers as it can"


class PeerWithdrew(RemoteError):
    """A peer that held the object serves it no more: its files changed, or cannot be read."""

    sentence = "peer {peer} has withdrawn the object: {detail}"
    advice = "register it there again, or get it from another node ('mooncake list' shows what there is)"


class NoLivePeer(MooncakeError):
    """Nobody who holds the object (or the chunks still missing) answers."""

    exit_code = 5
    sentence = "no live peer has what is missing of {name!r}: {detail}"
    advice = "run 'mooncake info {name!w}' to see who holds it; the same command resumes"


class SourceSilent(NoLivePeer):
    """Whoever holds the object is there, and has sent no byte of it for too long."""

    sentence = "nothing of {name!r} has come for {seconds} s: {detail}"
    advice = "run 'mooncake info {name!w}', and 'mooncake doctor' with a node that it lists; the same command resumes"


class HolderGone(NoLivePeer):
    """An object of this name was there, and nobody holds it now: whoever had it died, and may come back."""

    sentence = "nobody holds {name!r} now: {creator}, which registered it, was found to be gone on {noticed}"
    advice = "start the agent of {creator} again, and run the same command; or register the object elsewhere"


class GetTimedOut(MooncakeError):
    """A get was to take no longer."""

    exit_code = 5
    sentence = "not all of {name!r} came within {time}"
    advice = "the same command resumes; to '-' it begins anew"


class AgentStartFailed(MooncakeError):
    """An agent started in the background ended without saying why, or never answered."""

    sentence = "the agent did not start: {detail}"
    advice = "run 'mooncake node logs', or see it happen with 'mooncake node run'"


class NodeEnded(MooncakeError):
    """A part of the node that it cannot be without failed, and starting it again did not help: the node ended."""

    sentence = "the node ended itself: its {task} does not work (failures in a row: {failures}): {detail}"
    advice = "run 'mooncake node logs', and report what it shows as a bug; a new start may help meanwhile"


class AgentUnreachable(MooncakeError):
    """The agent's socket is there, and it does not answer."""

    exit_code = 5
    sentence = "the agent in {home} does not answer: {detail}"
    advice = "try again; if it stays so, 'mooncake node logs' shows what it does, and 'mooncake node stop' ends it"


class AgentGone(AgentUnreachable):
    """The agent ended while it was at work for a command."""

    sentence = "the agent in {home} went away in the middle of the call"
    advice = "the same command resumes, with a new agent; 'mooncake node logs' shows what the last one wrote"


class AgentKilled(AgentGone):
    """It did, when the kernel ended a process for want of memory."""

    sentence = (
        "the agent in {home} went away in the middle of the call, when the kernel killed a process of {group} for want "
        "of memory"
    )
    advice = "give the job or container more memory, or the agent less to do; the same command resumes"


class AgentStarting(AgentUnreachable):
    """An agent holds the home, and does not listen yet."""

    sentence = "the agent in {home} (pid {pid}) is not ready: {detail}"
    advice = "wait for it, or end it with 'mooncake node stop'"


class ObjectExists(Refused):
    """The name is taken by other content. ``difference``, where it is known, begins with a colon."""

    sentence = "an object named {name!r} with other content exists{difference}"
    advice = "choose another --name, or replace it with --force"

    def __init__(self, **fields: object) -> None:
        super().__init__(**{"difference": "", **fields})


class DestinationExists(Refused):
    """Something else is at the destination."""

    sentence = "{path} exists and is not this object"
    advice = "say DEST/ to put the object inside a directory, move away what is there, or replace it with --force"


class ForeignContent(Refused):
    """A directory at the destination has something in it that no version of the object put there."""

    sentence = "{path} is no earlier version of this object: it has {name!r} in it"
    advice = "say DEST/ to put the object inside it, move it away, or delete all that is in it with --wipe"


class NotReplaceable(Refused):
    """What is at the destination cannot be replaced."""

    sentence = "{path} cannot be replaced: {detail}"
    advice = "say DEST/ to put the object inside a directory, or choose another destination"


class DestinationServed(Refused):
    """What is at the destination, or in it, is served by this node under another name."""

    sentence = "{path} is not replaced: this node serves {root} as {name!r}"
    advice = "choose another destination, or run 'mooncake unregister {name!w}' first"


class DestinationBusy(Refused):
    """Another get writes to the same destination."""

    sentence = "another get is writing {path}"
    advice = "wait for it, or choose another destination"


class ForeignFile(Refused):
    """Somebody put something into the partial form of a destination; it must not get under the final name."""

    sentence = "{path} is not of this object, and lies where a get is writing"
    advice = "move it away, and run the same command again"


class NodeNameTaken(Refused):
    """Another live node has the name that this one was to have."""

    sentence = "another node named {node!r} is alive at {address}"
    advice = "give this one another name with --node, or end that one"


class OtherMetadata(Refused):
    """A command named a metadata server, and the agent that would do its work uses another."""

    sentence = "the agent of {home} uses the metadata server {theirs}, not {asked}"
    advice = "run 'mooncake node stop' first, or use an agent of its own with --home DIR"


class OtherView(Refused):
    """The agent and the command that calls it have different things at one path."""

    sentence = (
        "the agent does not see at {path} what this command sees there: it runs in another mount namespace "
        "(a container, a chroot, PrivateTmp= of systemd)"
    )
    advice = "name a path that both see, or end that agent with 'mooncake node stop' and start one from here"


class AgentRunning(Refused):
    """A second agent was started in one home."""

    sentence = "an agent already runs in {home} (pid {pid})"
    advice = "use it, end it with 'mooncake node stop', or give the new one a home of its own with --home"


class HomeElsewhere(Refused):
    """Several hosts or containers see one home, and the agent that has it is not of this one."""

    sentence = "the agent of {home} runs on {host} (pid {pid})"
    advice = "give each host a home of its own with --home or MOONCAKE_HOME, or end that agent over there"


class SecretRefused(Refused):
    """The cluster secret is missing or differs."""

    sentence = "{peer} refused our cluster secret"
    advice = "give all nodes the same secret (MOONCAKE_SECRET_FILE); agents of other users have another one"


class ClocksDiffer(SecretRefused):
    """The cluster secret is the same, and the clocks are not."""

    sentence = "{peer} refused our request: its clock and ours differ by more than {seconds:g} seconds"
    advice = "set both clocks by NTP ('timedatectl set-ntp true'), then run the same command again"


class ListenRefused(Refused):
    """An address that others can reach, and nothing that keeps strangers out."""

    sentence = "refusing to listen on {address} without a cluster secret"
    advice = "set MOONCAKE_SECRET_FILE on all nodes, or say --insecure on a network that you trust"


class NothingGuards(ListenRefused):
    """An address that others can reach, for a server that has no secret to ask for."""

    sentence = "refusing to serve metadata on {address}: there is no password, and whoever reaches it can change it"
    advice = "listen on loopback, or say --insecure on a network that you trust"


class PartialResult(MooncakeError):
    """Some of it was done, and some was not."""

    exit_code = 10
    sentence = "{detail}"
    advice = "run the same command again"


class PartChanged(MooncakeError):
    """Another program wrote to the partial form of a destination, and left wrong bytes in it."""

    exit_code = 10
    sentence = "another program wrote to {path} while a get was writing it"
    advice = "find out which, and run the same command again: it brings what is wrong once more"


class Interrupted(MooncakeError):
    """Ctrl-C, or the client went away."""

    exit_code = 130
    sentence = "interrupted: {detail}"
    advice = "run the same command again to resume"


def all_errors() -> list[type[MooncakeError]]:
    """Every class of the tree, root first, each parent before its children."""
    found: list[type[MooncakeError]] = []
    waiting: list[type[MooncakeError]] = [MooncakeError]
    while waiting:
        cls = waiting.pop(0)
        found.append(cls)
        waiting = cls.__subclasses__() + waiting
    return found


def to_wire(error: MooncakeError) -> dict[str, Any]:
    """The JSON form of an error: class name, fields, and for readers without our classes its sentence and advice."""
    fields = {k: v if isinstance(v, (str, int, float, bool)) else str(v) for k, v in error.fields.items()}
    return {
        "type": type(error).__name__,
        "fields": fields,
        "message": str(error),
        "advice": error.hint,
        "exit_code": error.exit_code,
    }


def from_wire(data: object) -> MooncakeError:
    """The error that ``to_wire`` described; an unknown or malformed one becomes a plain ``MooncakeError``."""
    if isinstance(data, dict):
        fields = data.get("fields")
        for cls in all_errors():
            if cls.__name__ == data.get("type") and isinstance(fields, dict):
                try:
                    error = cls(**fields)
                    _ = error.hint  # it needs its fields, too
                except (KeyError, ValueError, TypeError):
                    break
                else:
                    return error
        return MooncakeError(detail=str(data.get("message", data)))
    return MooncakeError(detail=repr(data))
