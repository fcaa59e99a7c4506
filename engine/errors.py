"""The error tree: what can go wrong, what the user is told, and with which status the command ends.

The engine's part of the tree; ``p2pstore.errors`` draws the whole::

    MooncakeError                   1   a defect of ours
    ├── BenchFailed                 1   a process of the bench ended or failed
    ├── UsageError                  2   the caller's fault: argument, address or state
    │   ├── AddressError            2   a range outside every registered buffer
    │   ├── PortTaken               2   somebody else listens on a port that is to be listened on
    │   ├── PortForbidden           2   a port on which this user may not listen
    │   ├── NoSuchAddress           2   this host has no such address to listen on, or not yet
    │   ├── BadConfig               2   a configuration value or key that is not understood
    │   ├── Closed                  2   a call on something that was closed, or that was closed during it
    │   ├── PackageMissing          2   a Python package that comes with an extra is not installed
    │   └── ForkedProcess           2   a call on something that belongs to the process we were forked from
    │       └── ForkedFromEtcd      2   etcd, where that process was connected to it
    ├── SegmentNotFound             3   the metadata server knows no such segment
    ├── RemoteError                 5   a peer's fault, never ours
    │   ├── RemoteProtocolError     5   it spoke no language of ours
    │   ├── PeerUnreachable         5   it does not answer, or went away
    │   ├── PeerStalled             5   it answers, and sends nothing
    │   ├── TransferFailed          5   no connection to it brought the bytes, however often we tried
    │   └── RangeRefused            7   it does not serve the range that we asked for
    ├── SourceChanged               4   a registered file is no longer what was registered
    ├── BytesDiffer                 4   a transfer of the bench left other bytes than were sent
    ├── MetadataUnavailable         6   the metadata server does not answer
    │   ├── MetadataUnhealthy       6   it answers that it cannot do it now
    │   └── MetadataFull            8   it has no space left, and takes no writes
    ├── Refused                     7   somebody said no (base class)
    │   └── MetadataRefused         7   the metadata server refused user, password or certificate
    ├── StorageError                8   the disk is full, or may not be written or read
    ├── TransportUnavailable        9   the transport cannot be used here
    │   ├── VerbsFailed             9   an RDMA device refused or failed a call
    │   └── LockedMemoryLimit       9   memory may not be pinned for an RDMA device
    ├── GpuUnavailable             11   memory of GPUs cannot be used in this process
    └── GpuFailed                  11   CUDA refused or failed a call

A class owns its exit status, its sentence and its advice; both texts are templates over the keyword fields with which
the error is raised, so that an error can cross a socket as its class name and fields and be the same on the other side.
"""

from __future__ import annotations

from string import Formatter
from typing import TYPE_CHECKING, Any, ClassVar

from engine.errnos import advice_for

if TYPE_CHECKING:
    from collections.abc import Callable


class _Commands(Formatter):
    """Templates with commands that can be pasted: ``{x!q}`` is a word for the shell, ``{x!w}`` an argument of ours."""

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        if conversion == "q":
            return shell_word(str(value))
        if conversion == "w":
            return argument(str(value))
        return super().convert_field(value, conversion)


def shell_word(value: str) -> str:
    """A word as a shell takes it; in double quotes where they do, since single ones are around the whole command."""
    import shlex  # noqa: PLC0415 - every command line loads this module, and few quote anything

    quoted = shlex.quote(value)
    return quoted if quoted == value or any(c in value for c in '"$`\\!\n') else f'"{value}"'


def argument(value: str) -> str:
    """The first argument of a command: one that looks like an option goes behind a ``--``, and options before it."""
    return f"-- {shell_word(value)}" if value.startswith("-") else shell_word(value)


class MooncakeError(Exception):
    """Root of everything that this project raises on purpose."""

    exit_code: ClassVar[int] = 1
    sentence: ClassVar[str] = "internal error: {detail}"
    advice: ClassVar[str] = "run 'mooncake node logs', and report what it shows as a bug"

    def __init__(self, **fields: object) -> None:
        """``fields`` fill the templates; each field that a template names must be given."""
        self.fields: dict[str, object] = fields
        super().__init__(self.sentence.format(**fields))

    def __reduce__(self) -> tuple[Callable[..., MooncakeError], tuple[type[MooncakeError], dict[str, object]]]:
        """A pool of processes sends what its workers raise; what cannot be read there ends the pool, or hangs it."""
        return _remade, (type(self), self.fields)

    @property
    def hint(self) -> str:
        """The advice, filled in: what to do or to run next; empty where there is none."""
        return self.filled(self.advice)

    def filled(self, template: str) -> str:
        """A template of advice with this error's fields in it."""
        return _Commands().format(template, **self.fields)

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """The fields that the two templates name, each once, in order."""
        formatter = Formatter()
        names = [name for text in (cls.sentence, cls.advice) for _, name, _, _ in formatter.parse(text) if name]
        return tuple(dict.fromkeys(names))


def _remade(kind: type[MooncakeError], fields: dict[str, object]) -> MooncakeError:
    return kind(**fields)


class BenchFailed(MooncakeError):
    """A process that the bench measures with ended, did not answer, or failed."""

    sentence = "the bench's {role} failed: {detail}"
    advice = "run it again with '--engine ours' to see whether only one engine fails"


class UsageError(MooncakeError):
    """The caller asked for something that makes no sense."""

    exit_code = 2
    sentence = "{detail}"
    advice = "see 'mooncake --help'"


class AddressError(UsageError):
    """A range lies outside every registered buffer, or is not servable now."""

    sentence = "no registered buffer serves {length} bytes at address {address:#x}"
    advice = ""


class PortTaken(UsageError):
    """Somebody else listens on a port that is to be listened on."""

    sentence = "cannot listen on {address}: {detail}"
    advice = "see who has the port with 'ss -ltnp', and end that, or choose another port"


class PortForbidden(UsageError):
    """A port on which the system lets this user not listen."""

    sentence = "cannot listen on {address}: {detail}"
    advice = "choose a port from 1024 on: those below take root, or the capability CAP_NET_BIND_SERVICE"


class NoSuchAddress(UsageError):
    """What is to be listened on means no address of this host: none has it, or not yet."""

    sentence = "cannot listen on {address}: {detail}"
    advice = "run 'mooncake topology' to see this host's interfaces and their addresses"


class BadConfig(UsageError):
    """A setting that is not understood, with the place it came from."""

    sentence = "{origin}: {detail}"
    advice = "correct it there, or take it out, then run the same command again; 'man mooncake' lists the settings"


class PackageMissing(UsageError):
    """What was asked for needs a Python package that is not installed; ``install`` is what pip is to be given."""

    sentence = "{what} needs {package}"
    advice = "run 'pip install {install!q}' where mooncake is installed, then the same command again"


class Closed(UsageError):
    """A call on an object that was closed before, or by another thread meanwhile."""

    sentence = "{what} was closed"
    advice = ""


class ForkedProcess(UsageError):
    """A call, in a forked child, on an object of its parent's."""

    sentence = (
        "{what} belongs to process {pid}, from which this one was forked, and works there alone; make another here, "
        "or start the process with multiprocessing's 'spawn' or 'forkserver' instead of 'fork'"
    )
    advice = ""


class ForkedFromEtcd(ForkedProcess):
    """etcd is spoken to over gRPC, which works in no child of a process that had a connection at the fork."""

    sentence = (
        "{what} cannot be reached from here: this process was forked from process {pid} while that was connected to "
        "etcd, and gRPC does not survive a fork; start the process with multiprocessing's 'spawn' or 'forkserver'"
    )


class SegmentNotFound(MooncakeError):
    """No segment of this name is published."""

    exit_code = 3
    sentence = "segment {segment!r} is not known at {url}"
    advice = "check that its process runs and uses the same metadata server and MC_METADATA_CLUSTER_ID"


class RemoteError(MooncakeError):
    """A peer's fault. Only errors of this branch may ban a peer."""

    exit_code = 5
    sentence = "peer {peer}: {detail}"
    advice = ""
    advice_object = "run 'mooncake info {name!w}' to see who else holds the object; the same command resumes"
    """Where it is known which object was asked for: ``name`` is given, too."""

    @property
    def hint(self) -> str:
        """See ``MooncakeError.hint``."""
        return self.filled(self.advice_object) if "name" in self.fields else super().hint


class RemoteProtocolError(RemoteError):
    """Bytes from a peer that our protocol does not allow."""

    sentence = "peer {peer} broke the protocol: {detail}"


class PeerUnreachable(RemoteError):
    """A peer refused the connection, or closed it."""

    sentence = "peer {peer} cannot be reached: {detail}"
    advice_target = "see whether that target runs; 'mooncake bench transfer --mode target' starts one there"
    """Where it is a target of the bench that the user named: ``target`` is given, too."""

    @property
    def hint(self) -> str:
        """See ``MooncakeError.hint``."""
        return self.filled(self.advice_target) if "target" in self.fields else super().hint


class PeerStalled(RemoteError):
    """A peer sent nothing for longer than the timeout."""

    sentence = "peer {peer} sent nothing for {seconds} s"


class TransferFailed(RemoteError):
    """A range that every attempt failed to move; ``errno`` is the last socket error's, or 0 where there was none."""

    sentence = "peer {peer}: {length} bytes at address {address:#x} failed {attempts} times: {detail} (errno {errno})"
    advice = "check that its process runs, and that its data port can be reached from here"


class RangeRefused(RemoteError):
    """A peer answered that it does not serve the range."""

    exit_code = 7
    sentence = "peer {peer} refused to serve {length} bytes at address {address:#x}"


class SourceChanged(MooncakeError):
    """A registered file was written to, replaced or removed."""

    exit_code = 4
    sentence = "{path} is no longer what was registered: {detail}"
    advice = "see to it that nothing writes to it, then register it again"


class BytesDiffer(MooncakeError):
    """The bench checked what was moved, and found other bytes."""

    exit_code = 4
    sentence = "{engine}: {operation} in blocks of {block_size} bytes left a wrong byte at offset {offset} of {length}"
    advice = "test the memory and the network of both machines; another engine ('--engine') tells whether it is ours"


class MetadataUnavailable(MooncakeError):
    """The metadata server does not answer."""

    exit_code = 6
    sentence = "metadata server {url} does not answer: {detail}"
    advice = "check that it runs there; 'mooncake config show --origin' says where the address comes from"


class MetadataUnhealthy(MetadataUnavailable):
    """The metadata server answers, and says that it cannot do what it is asked now."""

    sentence = "metadata server {url} answers that it cannot do it now: {detail}"
    advice = "try again; if it stays so, run 'mooncake doctor', which asks each of its endpoints, and read its own log"


class MetadataFull(MetadataUnavailable):
    """The metadata server has no space left: it answers reads, and takes no writes."""

    exit_code = 8
    sentence = "metadata server {url} has no space left, and takes no writes: {detail}"
    advice = (
        "make room there (for etcd: 'etcdctl compact REVISION', 'etcdctl defrag', 'etcdctl alarm disarm', or a larger "
        "--quota-backend-bytes); gets go on meanwhile"
    )


class Refused(MooncakeError):
    """Somebody said no."""

    exit_code = 7
    sentence = "{detail}"
    advice = ""


class MetadataRefused(Refused):
    """The metadata server refused us."""

    sentence = "metadata server {url} refused: {detail}"
    advice = (
        "check its user, password and certificates, or who may open its socket: "
        "'mooncake config show --origin' says where they come from"
    )


class StorageError(MooncakeError):
    """The operating system refused to read or write."""

    exit_code = 8
    sentence = "{path}: {detail}"
    advice = ""
    """Empty: what to do depends on what the system said, and ``engine.errnos`` has that."""
    advice_inside = "; or leave it out with --exclude {pattern!q}"
    """Added where it is something in a directory that is registered: ``pattern`` is given, too."""

    @property
    def hint(self) -> str:
        """See ``MooncakeError.hint``."""
        hint = super().hint or advice_for(self.fields["detail"])
        return hint + self.filled(self.advice_inside) if "pattern" in self.fields else hint


class TransportUnavailable(MooncakeError):
    """A transport cannot be used between these two nodes."""

    exit_code = 9
    sentence = "transport {transport} is not available: {detail}"
    advice = "use '--transport auto' to take whichever works"


class VerbsFailed(TransportUnavailable):
    """A call to an RDMA device failed."""

    sentence = "transport {transport} is not available: {call} failed on {device}: {detail}"


class LockedMemoryLimit(TransportUnavailable):
    """Memory could not be pinned: by far most often the limit of locked memory."""

    sentence = (
        "transport {transport} is not available: {length} bytes cannot be pinned for {device}; "
        "this process's limit of locked memory is {limit}"
    )
    advice = (
        "raise the limit ('ulimit -l unlimited', LimitMEMLOCK=infinity in a unit of systemd), or use '--transport tcp'"
    )


class GpuUnavailable(MooncakeError):
    """Something lies on a GPU, and CUDA cannot be used in this process; ``todo`` is what to do about it."""

    exit_code = 11
    sentence = "memory of GPUs cannot be used here: {detail}"
    advice = "{todo}"


class GpuFailed(MooncakeError):
    """A call of CUDA's driver failed, or something that an earlier one began; ``detail`` are CUDA's words, or empty."""

    exit_code = 11
    sentence = "GPU {device}: {call} failed with {code}{detail}"
    advice = "{todo}"
