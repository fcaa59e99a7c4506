"""What the arguments of the Python API's methods mean: each is looked at before anything begins.

All raise ``UsageError`` for what does not fit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine import arguments
from p2pstore.errors import UsageError
from p2pstore.objects.chosen import Choice, parse_range
from p2pstore.objects.selection import Selection
from p2pstore.pull.run import Emit
from p2pstore.pull.spread_get import SpreadRequest
from p2pstore.pull.tensor_get import TensorRequest
from p2pstore.settings.keys import TRANSPORTS
from p2pstore.tensors.frameworks import CPU, WITHOUT_GPU, NumPy, framework_of, names_gpu
from p2pstore.tensors.patterns import NamePatterns
from p2pstore.tensors.ranks import Ranks, Rule


def given_path(value: str | os.PathLike[str], what: str) -> Path:
    """The absolute form of a path; ``what`` is what the error calls it."""
    return Path(os.path.abspath(arguments.path(value, what)))


def given_selection(include: Sequence[str], exclude: Sequence[str], everything: bool) -> Selection:  # noqa: FBT001 - as given
    """Which files of a directory are registered."""
    return Selection(
        arguments.texts(include, "the patterns to include"),
        arguments.texts(exclude, "the patterns to exclude"),
        bool(everything),
    )


def given_choice(include: Sequence[str], exclude: Sequence[str], byte_range: str) -> Choice:
    """What of an object is wanted."""
    taken, left = (arguments.texts(given, "the patterns of files") for given in (include, exclude))
    try:
        wanted = parse_range(arguments.text(byte_range, "the range")) if byte_range else None
    except ValueError as error:
        raise UsageError(detail=f"the range: {error}") from None
    return Choice("", taken, left, wanted)


def way(transport: str, peers: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """By what, and from whom alone, it is to come."""
    if not isinstance(transport, str) or transport not in TRANSPORTS:
        raise arguments.refuse(transport, "the transport", f"one of {', '.join(TRANSPORTS)}")
    return transport, arguments.texts(peers, "the peers")


LAYOUTS = ("replicate", "shard")
"""How several GPUs share an object's tensors: each has all of them, or each its rank's slices."""


def tensor_request(
    name: str,
    device: str,
    include: Sequence[str] | Callable[[str], bool],
    rank: tuple[int, int] | None,
    cut: Rule | None,
    framework: str,
    path: str,
    transport: str,
    peers: Sequence[str],
    without_gpu: str = WITHOUT_GPU,
) -> TensorRequest:
    """Which tensors are wanted, as what and where: see ``P2PStore.load_tensors``.

    ``without_gpu`` is what to do where PyTorch has no GPU.
    """
    made = framework_of(framework, device, without_gpu)
    ranks = Ranks(*_rank(rank), rule=cut) if rank is not None else None
    if cut is not None:
        _check_cut(cut, "with a rank", ranked=ranks is not None)
    transport, peers = way(transport, peers)
    within = arguments.text(path, "the path in the object")
    return TensorRequest(name, made, _patterns(include), ranks, within, transport, peers)


def spread_request(
    name: str,
    device: str,
    devices: Sequence[str],
    layout: str,
    include: Sequence[str] | Callable[[str], bool],
    rank: tuple[int, int] | None,
    cut: Rule | None,
    framework: str,
    path: str,
    transport: str,
    peers: Sequence[str],
) -> SpreadRequest:
    """The same for several GPUs: see ``P2PStore.load_tensors``."""
    names = arguments.texts(devices, "the devices")
    if not names:
        raise UsageError(detail="devices= names no GPU; give at least one, such as ['cuda:0']")
    if device != CPU:
        raise UsageError(detail=f"give either device={device!r} or devices=, not both")
    check_layout(layout)
    if framework == NumPy.name:
        raise UsageError(detail="NumPy's arrays lie in the host's memory, and devices= are GPUs: use framework='torch'")
    for each in names:  # before a package is asked about, which for such a one need not be there
        if not names_gpu(each):
            raise _no_gpu(each)
    made = tuple(framework_of(framework, each, "leave devices= out") for each in names)
    shard = layout == "shard"
    if shard and rank is not None:
        raise UsageError(detail="with layout='shard' the rank is the place in devices=: leave rank= out")
    if cut is not None:
        _check_cut(cut, "with a rank or layout='shard'", ranked=shard or rank is not None)
    ranks: tuple[Ranks | None, ...]
    if shard:
        ranks = tuple(Ranks(number, len(made), rule=cut) for number in range(len(made)))
    else:
        ranks = (Ranks(*_rank(rank), rule=cut) if rank is not None else None,)
    transport, peers = way(transport, peers)
    within = arguments.text(path, "the path in the object")
    return SpreadRequest(name, made, _patterns(include), ranks, within, transport, peers)


def _no_gpu(device: str) -> UsageError:
    other = "; for it use device=" if device == CPU else ""
    return UsageError(detail=f"devices= are GPUs, such as 'cuda:0', and {device!r} is none{other}")


def check_layout_alone(layout: str) -> None:
    """See that no layout is given where no devices are."""
    check_layout(layout)
    if layout != LAYOUTS[0]:
        raise UsageError(detail="layout= says how several GPUs share the tensors: name them with devices=")


def check_layout(layout: str) -> None:
    """See that it is one. Raises ``UsageError``."""
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise arguments.refuse(layout, "the layout", f"one of {', '.join(LAYOUTS)}")


def _check_cut(cut: Rule, how: str, *, ranked: bool) -> None:
    if not ranked or not (callable(cut) or isinstance(cut, Mapping)):
        raise arguments.refuse(cut, "cut", f"a table or a function, {how}")


def _patterns(include: Sequence[str] | Callable[[str], bool]) -> NamePatterns:
    if callable(include):
        return NamePatterns(test=include)
    return NamePatterns(arguments.texts(include, "the patterns of tensors"))


def _rank(rank: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(rank, tuple) or len(rank) != 2:
        raise arguments.refuse(rank, "the rank", "(rank, number of ranks)")
    return arguments.whole(rank[0], "the rank"), arguments.whole(rank[1], "the number of ranks")


def progress_only(progress: Callable[[int, int], None] | None) -> Emit:
    """What takes a get's events, and tells ``progress`` of those that it is for."""
    if progress is not None and not callable(progress):
        raise arguments.refuse(progress, "what is told of progress", "something that can be called")

    def emit(event: dict[str, Any]) -> None:
        if progress is not None and event["event"] == "progress" and event.get("unit", "B") == "B":
            progress(event["done"], event["total"])

    return emit


def notes_only(note: Callable[[str], None] | None) -> Emit:
    """What takes a get's events, and tells ``note`` of what takes long."""
    if note is not None and not callable(note):
        raise arguments.refuse(note, "what is told of notes", "something that can be called")

    def emit(event: dict[str, Any]) -> None:
        if note is not None and event["event"] == "note":
            note(event["text"])

    return emit
