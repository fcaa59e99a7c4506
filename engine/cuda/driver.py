"""What is asked of CUDA: some twenty-five calls of its driver, with two implementations.

``bindings.py`` makes them by NVIDIA's cuda-bindings; ``fake_driver.py`` keeps CUDA's rules without a GPU. Addresses,
streams and events are the driver's own numbers. A GPU is named by its number in this process, as PyTorch does.

The rules, which callers keep: calls are made inside ``with driver.on(device)``, but for those that say that they may be
made anywhere. A copy returns before it is done; its bytes are there, and its pinned memory may be used for others, once
an event is ``done`` that was recorded in its stream behind it. What a copy or a kernel does wrong is told by some later
call.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from engine.errors import GpuFailed

LEGACY_STREAM = 1
"""CUDA's number of the default stream, which waits for all streams of its device that do not refuse that."""

OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"
INVALID_VALUE = "CUDA_ERROR_INVALID_VALUE"
INVALID_CONTEXT = "CUDA_ERROR_INVALID_CONTEXT"
INVALID_HANDLE = "CUDA_ERROR_INVALID_HANDLE"
ILLEGAL_ADDRESS = "CUDA_ERROR_ILLEGAL_ADDRESS"
PEER_UNSUPPORTED = "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"
PEER_ENABLED = "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED"

_FATAL = frozenset({
    ILLEGAL_ADDRESS, "CUDA_ERROR_LAUNCH_FAILED", "CUDA_ERROR_LAUNCH_TIMEOUT", "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_ECC_UNCORRECTABLE", "CUDA_ERROR_HARDWARE_STACK_ERROR", "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_MISALIGNED_ADDRESS", "CUDA_ERROR_INVALID_ADDRESS_SPACE", "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_NVLINK_UNCORRECTABLE", "CUDA_ERROR_CONTAINED", "CUDA_ERROR_MPS_CLIENT_TERMINATED",
})  # fmt: skip
"""After these a process cannot use the GPU any more: whatever it asks, this is the answer."""


class Exported(NamedTuple):
    """``handle`` opens memory in another process; what was asked about begins at ``offset`` of it."""

    handle: bytes
    offset: int


class Driver(Protocol):
    """CUDA's driver. Every call raises ``GpuFailed``; those that may take long let other threads run."""

    def count(self) -> int:
        """How many GPUs this process sees. May be called anywhere."""

    def pci_address(self, device: int) -> str:
        """Where a GPU is, as sysfs has it (``0000:18:00.0``). May be called anywhere."""

    def reaches(self, device: int, other: int) -> bool:
        """Whether CUDA says that a GPU can use another's memory by itself. May be called anywhere."""

    def device_of(self, address: int) -> int:
        """The GPU on which memory lies. May be called anywhere."""

    def on(self, device: int) -> AbstractContextManager[None]:
        """Make this thread's calls concern a GPU, by the context that all libraries share; what was set comes back.

        They are allowed while another thread captures a CUDA graph, and do not spoil it.
        """

    def pin(self, length: int) -> int:
        """The address of new memory of the host that every GPU copies from and to by itself."""

    def unpin(self, address: int) -> None:
        """Give such memory back. No copy may be at work on it."""

    def register(self, address: int, length: int) -> None:
        """Pin memory of this process that is there already, such as a mapping that others have, too."""

    def unregister(self, address: int) -> None:
        """Let it be as it was. No copy may be at work on it."""

    def stream(self) -> int:
        """A new stream: what is put into it is done in that order, beside all other streams."""

    def end_stream(self, stream: int) -> None:
        """It takes nothing more; what is in it is still done."""

    def to_device(self, address: int, source: int, length: int, stream: int) -> None:
        """Put a copy from the host to the GPU into a stream."""

    def rows_to_device(self, address: int, source: int, row: int, stride: int, rows: int, stream: int) -> None:
        """Put a copy of ``rows`` of ``row`` bytes from the host to the GPU into a stream.

        On the host the next begins ``stride`` bytes after the last; on the GPU they lie end to end.
        """

    def to_host(self, target: int, address: int, length: int, stream: int) -> None:
        """Put a copy from the GPU to the host into a stream."""

    def memory(self, length: int) -> int:
        """The address of new memory of the GPU."""

    def end_memory(self, address: int) -> None:
        """Give such memory back. No copy may be at work on it."""

    def open_peer(self, other: int) -> None:
        """Let this GPU use the memory of another by itself, for as long as the process lives. Twice is harmless."""

    def to_peer(self, address: int, source: int, length: int, stream: int, device: int) -> None:
        """Put a copy from this GPU to memory of ``device``, which may be the same, into a stream of this one.

        It goes by way of the host, slowly, where ``open_peer`` was not called for the two.
        """

    def export(self, address: int) -> Exported:
        """What another process of this host opens memory of this GPU with: all that was allocated together.

        Memory that a library has mapped itself, as PyTorch's expandable segments, cannot be.
        """

    def open_exported(self, handle: bytes) -> int:
        """The address, for copies of this GPU, of another process's memory, whose GPU this one must reach.

        It is to be closed before its owner frees it. Nothing is said of what is read after the owner has ended.
        """

    def close_exported(self, address: int) -> None:
        """Let go of it. No copy may be at work on it."""

    def event(self) -> int:
        """A new event."""

    def end_event(self, event: int) -> None:
        """It is not needed any more; harmless while it is not done."""

    def record(self, event: int, stream: int) -> None:
        """Let the event be done once all is done that is in the stream by now."""

    def done(self, event: int) -> bool:
        """Whether what it was recorded behind is done."""

    def wait(self, stream: int, event: int) -> None:
        """Let what is put into the stream from now on wait for the event, as it was recorded last."""


def recorded(driver: Driver, stream: int) -> int:
    """An event that is done when what is in a stream by now is, the caller's to end. Inside ``on`` of the stream's GPU.

    Raises ``GpuFailed``; then there is no event.
    """
    event = driver.event()
    try:
        driver.record(event, stream)
    except BaseException:
        driver.end_event(event)
        raise
    return event


def lasting(error: GpuFailed) -> bool:
    """Whether what failed will fail again: the GPU is lost to this process, or the memory was freed."""
    return error.fields["code"] in _FATAL | {INVALID_VALUE}


def failed(call: str, device: int, code: str, detail: str = "") -> GpuFailed:
    """What a call of the driver answered, as an error that says what to do about it."""
    if code == OUT_OF_MEMORY and call == "cuMemHostAlloc":
        todo = "let this process pin more memory: see 'ulimit -l', and what its container or job may use"
    elif code == OUT_OF_MEMORY:
        todo = "see with 'nvidia-smi' who has the GPU's memory, and free some"
    elif code in {INVALID_VALUE, INVALID_HANDLE}:
        todo = "keep the tensor, and what its memory belongs to, until the call has returned or it is unregistered"
    elif code in _FATAL:
        todo = "end this process: it cannot use the GPU any more; 'dmesg' shows what the GPU reported (Xid)"
    else:
        todo = "look up what the code means in CUDA's description of its driver"
    return GpuFailed(device=device, call=call, code=code, detail=f" ({detail})" if detail else "", todo=todo)
