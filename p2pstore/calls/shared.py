"""What ``share=`` of ``load_tensors`` means: which processes of this host load together, and who wants what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from engine import arguments
from p2pstore.calls.given import LAYOUTS, check_layout, tensor_request
from p2pstore.errors import UsageError
from p2pstore.pull.tensor_get import TensorRequest
from p2pstore.sharing.launch import Launch, launch_of
from p2pstore.tensors.frameworks import CPU, NumPy, names_gpu
from p2pstore.tensors.ranks import Rule

HOST = "host"


def shared_request(
    share: str,
    environ: Mapping[str, str],
    name: str,
    device: str,
    layout: str,
    include: Sequence[str] | Callable[[str], bool],
    rank: tuple[int, int] | None,
    cut: Rule | None,
    framework: str,
    path: str,
    transport: str,
    peers: Sequence[str],
) -> tuple[TensorRequest, Launch]:
    """The tensors that this process wants, and which of the host's it is. Raises ``UsageError``."""
    if share != HOST:
        raise arguments.refuse(share, "share", f"{HOST!r}, or empty for a get of its own")
    check_layout(layout)
    launch = launch_of(environ)
    if framework == NumPy.name:
        raise UsageError(
            detail="share='host' is for GPUs, and NumPy's arrays lie in the host's memory: use framework='torch'"
        )
    if layout == LAYOUTS[1]:
        if rank is not None:
            raise UsageError(detail="with share='host' and layout='shard' the rank is LOCAL_RANK: leave rank= out")
        rank = (launch.rank, launch.size)
    if device == CPU:
        device = f"cuda:{launch.rank}"
    if not names_gpu(arguments.text(device, "the device")):
        raise UsageError(detail=f"share='host' is for GPUs, such as 'cuda:0', and {device!r} is none")
    alone = "leave share= out"  # device='cpu' would be the rank's GPU again
    return tensor_request(name, device, include, rank, cut, framework, path, transport, peers, alone), launch


def check_no_share(share: str) -> None:
    """See that processes do not share where one has the GPUs. Raises ``UsageError``."""
    if share:
        raise UsageError(detail="devices= are GPUs of this process alone: leave share= out, or give device=")
