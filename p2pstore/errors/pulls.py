"""Peers that fail, and gets that come to no good end.

``p2pstore.errors`` draws the whole tree.
"""

from __future__ import annotations

from engine.errors import MooncakeError, PeerUnreachable, Refused, RemoteError


class ChunkMismatch(RemoteError):
    """A peer sent a chunk whose hash is wrong."""

    exit_code = 4
    sentence = "peer {peer} sent wrong bytes for chunk {chunk}"


class TensorsDiffer(MooncakeError):
    """The bench compared what came to GPUs, and found other bytes."""

    exit_code = 4
    sentence = "bench: tensor {tensor!r} is not on {device} as it was sent ({layout})"
    advice = (
        "'nvidia-smi -q' shows errors of a GPU's memory; with --devices, that GPU alone tells whether it is its peers"
    )


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


class HubNotRead(NoLivePeer):
    """Nobody who holds a file of the model hub's answers, and this agent reads no hub."""

    sentence = "nobody who is alive holds all of {file!r}, and this agent reads no hub"
    advice = (
        "start the agent of a node that holds it; or end this one with 'mooncake node stop', and run it again with "
        "MOONCAKE_HF_UPSTREAM=https://huggingface.co"
    )


class GetTimedOut(MooncakeError):
    """A get was to take no longer."""

    exit_code = 5
    sentence = "not all of {name!r} came within {time}"
    advice = "the same command resumes; to '-' it begins anew"


class DestinationExists(Refused):
    """Something else is at the destination."""

    sentence = "{path} exists and is not this object"
    advice = "say DEST/ to put the object inside a directory, move away what is there, or replace it with --force"
    advice_version = "it is the version {version} of it: replace that with --update, or say another DEST"
    """Where this node holds it as such: ``version`` is given, too."""
    advice_file = "say another DEST, move away the file that is there, or replace it with --force"
    """Where it is a file, in which nothing can be put: ``file`` is given, too."""

    @property
    def hint(self) -> str:
        """See ``MooncakeError.hint``."""
        if "version" in self.fields:
            return self.filled(self.advice_version)
        return self.advice_file if "file" in self.fields else super().hint


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


class JobCancelled(Interrupted):
    """A get in the background was cancelled."""

    sentence = "job {id} was cancelled"
    advice = "get the object again, and it resumes where it was: 'mooncake jobs show {id}' has the command"
