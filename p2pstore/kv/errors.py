"""The pooled store's part of the error tree, which ``p2pstore.errors`` draws without it.

::

    MooncakeError                     1   (engine) a defect of ours
    ├── KeyNotFound                   3   the pooled store has no value under a key
    ├── ValueUnreadable               5   no replica of a value can be read
    │   └── ValueCorrupt              4   those that can be read are not what was put
    ├── FileChanged                   4   a file was written to while it was read to be put
    ├── ValueNotWritten               5   a value could not be taken to the memory that it was given
    ├── MasterUnavailable             6   the master of the pooled store cannot be used
    ├── EngineUnavailable             6   an engine that serves does not say what it is
    ├── StorageError                  8   (engine) no space, or no permission
    │   ├── StateUnusable             8   a master's state directory cannot be used
    │   │   └── StateOfOtherVersion   8   for another version wrote what is there
    │   ├── JournalFailed             8   what changed could not be kept there
    │   └── TierUnusable              8   a client's directory for values on disk cannot be used
    └── Refused                       7   (engine) somebody said no (base class)
        ├── MasterRefused             7   the master of the pooled store says no
        │   └── PoolFull              8   for want of room
        ├── StateTaken                7   another master keeps its state there
        ├── TierTaken                 7   another process keeps its values there
        ├── ListenRefused             7   an open address without a secret
        │   ├── MasterUnguarded       7   the same of a master, whose clients know none
        │   └── GiverUnguarded        7   the same of memory that is given to a pool
        ├── KeyExists                 7   there is a value under this key already
        ├── KeyBusy                   7   another client is writing under this key
        └── MasterIsUpstreams         7   the master is upstream's, which cannot do that
"""

from __future__ import annotations

from p2pstore.errors import ListenRefused, MooncakeError, Refused, StorageError


class KeyNotFound(MooncakeError):
    """The pooled store has no value under this key."""

    exit_code = 3
    sentence = "the store has no value under {key!r}"
    advice = "run 'mooncake store why {key!w}' to see what became of it"


class ValueUnreadable(MooncakeError):
    """A value of the pooled store is listed, and no replica of it can be read."""

    exit_code = 5
    sentence = "the value of {key!r} cannot be read: {detail}"
    advice = "put it again, or try later: the store forgets what dead nodes had within seconds"


class ValueCorrupt(ValueUnreadable):
    """Each replica that can be read differs from what was put."""

    exit_code = 4
    sentence = "the value of {key!r} is not what was put: {detail}"
    advice = "remove it and put it again; if it happens again, look at that node's memory and network"


class FileChanged(MooncakeError):
    """A file that is to be put was written to while it was read."""

    exit_code = 4
    sentence = "{path} changed while it was read, and was not put"
    advice = "see to it that nothing writes to it, then put it again"


class ValueNotWritten(MooncakeError):
    """The memory that a value was given cannot be written to, wherever that was."""

    exit_code = 5
    sentence = "the value of {key!r} could not be written: {detail}"
    advice = "try again, and see whether the nodes that are named live and can be reached"


class EngineUnavailable(MooncakeError):
    """An engine does not answer when it is asked what it is."""

    exit_code = 6
    sentence = "the engine at {address} does not show its metrics: {detail}"
    advice = "see whether it runs there; or name its mooncake.json, or a key that it has put"


class MasterUnavailable(MooncakeError):
    """The master of the pooled store does not answer, or answers what makes no sense."""

    exit_code = 6
    sentence = "the store's master at {address} cannot be used: {detail}"
    advice = (
        "see that a master runs there ('mooncake store master' starts one), or name another; the next call tries again"
    )


class MasterRefused(Refused):
    """The master of the pooled store says no. ``code`` is its number for why."""

    sentence = "the store's master refused {what}: {detail} (code {code})"
    advice = ""


class PoolFull(MasterRefused):
    """There is no room for a value in the pool."""

    exit_code = 8
    advice = "give memory to the pool ('mooncake store give SIZE'), remove what is not needed, or pin less"


class KeyExists(Refused):
    """There is a value under this key already, and values do not change."""

    sentence = "there is a value under {key!r} already"
    advice = "values do not change: put yours in its place with --replace, or under another key"


class KeyBusy(Refused):
    """Another client is writing a value under this key."""

    sentence = "another client has begun to put {key!r} and has not ended"
    advice = "try again: the put ends, or the master gives it up"


class MasterIsUpstreams(Refused):
    """The master of the pooled store is upstream's, whose metrics port does not do what ours does."""

    sentence = "the store's master at {address} is upstream's, which cannot {what}"
    advice = "'mooncake store master' can, and serves the same clients"


class StateUnusable(StorageError):
    """The directory in which a master is to keep its state cannot be made, read or written, or is damaged."""

    sentence = "the master's state in {path} cannot be used: {detail}"
    advice = "mend that, or give the master another directory: with an empty one it begins empty"


class StateOfOtherVersion(StateUnusable):
    """The directory in which a master is to keep its state has one that another version of mooncake wrote."""

    sentence = "the master's state in {path} was written by another version of mooncake"
    advice = "start a master of that version, or give this one another directory: with an empty one it begins empty"


class JournalFailed(StorageError):
    """What changed in a master's pool could not be kept in its state directory."""

    sentence = "the master's state in {path} is not kept: {detail}; it takes no new values until it is"


class TierUnusable(StorageError):
    """The directory in which a client is to keep values on disk cannot be made, read or written, or is no such one."""

    sentence = "values cannot be kept on disk in {path}: {detail}"
    advice = "mend that, or give another directory: what is kept there is a copy, and may be removed"


class TierTaken(Refused):
    """Another process that lives keeps values in this directory."""

    sentence = "another process keeps values on disk in {path}"
    advice = "give each process a directory of its own"


class StateTaken(Refused):
    """Another master that lives keeps its state in this directory."""

    sentence = "another master keeps its state in {path}"
    advice = "stop that one, or give this master a directory of its own"


class MasterUnguarded(ListenRefused):
    """An address that others can reach, and nobody has said who may call: clients of the store know no password."""

    sentence = "refusing to serve the store on {address}: whoever reaches it can read and remove what is in it"
    advice = "say who may call with --allow NETWORK, or say --insecure on a network that you trust"


class GiverUnguarded(ListenRefused):
    """An address that others can reach, for memory that is given to a pool: what lies there is anybody's."""

    sentence = "refusing to give memory at {address}: whoever reaches it can read and change what lies there"
    advice = "give it on loopback, or say --insecure on a network that you trust"
