"""Objects, their names and sources, and what of them is not there or not right.

``p2pstore.errors`` draws the whole tree.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import MooncakeError, Refused, UsageError


class BadName(UsageError):
    """An object or node name outside the alphabet."""

    sentence = "bad name {name!r}: {detail}"
    advice = "names are made of letters, digits and . _ - /, with no empty part and no '..', at most 255 bytes"


class BadReference(BadName):
    """What follows an object's name is no digest."""

    sentence = "{reference!r} names no content: {detail}"
    advice = "write {name}@sha256: and the digest, or enough of its beginning; 'mooncake info {name!w}' shows it"


class BadTag(BadName):
    """A tag outside the alphabet."""

    sentence = "bad tag {tag!r}: {detail}"
    advice = (
        "tags are made of letters, digits and _ . -, begin with neither '.' nor '-', and have at most 128 characters"
    )


class AmbiguousDigest(UsageError):
    """The digests of several versions begin so. ``found`` are these versions, joined by commas."""

    sentence = "several versions of {name!r} begin so: {found}"
    advice = "give more digits of the one that is meant"


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


class ObjectNotFound(MooncakeError):
    """No object has this name."""

    exit_code = 3
    sentence = "no object is named {name!r}"
    advice = "run 'mooncake list' to see what there is"


class VersionNotFound(ObjectNotFound):
    """An object of this name is known, and no version of it has such a digest."""

    sentence = "no version of {name!r} has the digest {digest}"
    advice = "run 'mooncake info {name!w}' to see the digest of the one that there is"


class TagNotFound(ObjectNotFound):
    """An object of this name is known, and has no such tag."""

    sentence = "{name!r} has no tag {tag!r}"
    advice = "run 'mooncake tag {name!w}' to see its tags"


class DigestOfAnother(MooncakeError):
    """A digest was given with the name ``wanted``, and is of an object that is called ``name``."""

    exit_code = 3
    sentence = "{digest} is no version of {wanted!r}: it is the content of {name!r}"
    advice = "run 'mooncake info {name!w}' to see it"


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


class VersionNotHeld(NotHeld):
    """This node holds nothing of the version that a tag stands for."""

    sentence = "this node holds nothing of {name!r}, which stands for {digest}"


class CopyStays(Refused):
    """The files of a copy are not deleted."""

    sentence = "the files at {path} are not deleted: {detail}"
    advice = "run 'mooncake cache list' to see what is here; what nobody needs there you can delete yourself"


class LastCopy(Refused):
    """A copy is not deleted, since no other is known to be whole."""

    sentence = "the files at {path} are not deleted: no other node that answers has all of {name!r}{detail}"
    advice = "get it on another node first, or delete it for good with --last-copies"


class NotAllDeleted(MooncakeError):
    """Some files of a copy were deleted, and then one could not be. The copy is served no more."""

    exit_code = 10
    sentence = "of the files at {path} {files} were deleted, and the others were not: {detail}"
    advice = "look at what is left there; nothing of it is used by mooncake any more"


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


class DirectoryMissing(PathNotFound):
    """The directory in which a get is to put something does not exist."""

    advice = "make it with 'mkdir -p {path!w}', or check the path"


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


class ObjectExists(Refused):
    """The name is taken by other content. ``difference``, where it is known, begins with a colon."""

    sentence = "an object named {name!r} with other content exists{difference}"
    advice = "choose another --name, or replace it with --force"

    def __init__(self, **fields: object) -> None:
        super().__init__(**{"difference": "", **fields})


class PartialResult(MooncakeError):
    """Some of it was done, and some was not. ``todo`` is what helps against what stopped the rest."""

    exit_code = 10
    sentence = "{detail}"
    advice = "{todo}"

    EACH = "what stopped each is said with it, and what to do about it"

    @classmethod
    def of(cls, errors: Sequence[MooncakeError], detail: str) -> PartialResult:
        """What to say of several things of which ``errors`` stopped some; advice that fits them all is said once."""
        hints = {error.hint for error in errors}
        return cls(detail=detail, todo=hints.pop() if len(hints) == 1 else cls.EACH)
