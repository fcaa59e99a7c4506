"""Weights for an engine from an object of the cluster: what the engine is told, and the tensors, one by one.

Nothing here knows vLLM; ``p2pstore.integrations.vllm_loader`` is what that loads.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from engine.memory.lent import byte_view
from engine.net import addresses
from p2pstore.agent.client import AgentClient
from p2pstore.agent.home import Home
from p2pstore.agent.options import credentials
from p2pstore.errors import BadConfig, UsageError
from p2pstore.objects.hashing import hasher
from p2pstore.objects.units import format_size, parse_size
from p2pstore.pull.tensor_stream import MEMORY, MIN_MEMORY
from p2pstore.settings.keys import TRANSPORTS
from p2pstore.settings.settings import Settings
from p2pstore.store import P2PStore

if TYPE_CHECKING:
    from typing_extensions import Self

OPTION = "--model-loader-extra-config"
"""Where an engine is told what is in ``LoadOptions``."""

EMBEDDINGS = ("embed_tokens.weight", "embed_in.weight", "wte.weight", "word_embeddings.weight")
HEAD = "lm_head.weight"
"""What names of tensors end in that turn tokens into vectors, and vectors into tokens."""

log = logging.getLogger("vllm.mooncake")
"""Below vLLM's own logger: it says what is logged, and where."""


@dataclass(frozen=True)
class LoadOptions:
    """What the engine is told. ``object`` is its name in the cluster; empty for that of the model.

    ``path`` is a directory or a file in it. ``metadata`` is the metadata server's URL, where settings and the agent are
    not to say it. ``transport`` and ``peers`` are as in a get, ``memory`` is as in ``iter_tensors``.
    ``enable_weights_track`` is vLLM's own: false lets a model start to which the object has not all weights.
    """

    object: str = ""
    path: str = ""
    metadata: str = ""
    transport: str = ""
    peers: tuple[str, ...] = ()
    memory: int = MEMORY
    enable_weights_track: bool | None = None

    @classmethod
    def of(cls, extra: Any) -> LoadOptions:
        """Those of a table of JSON. Raises ``BadConfig`` for what is not understood."""
        if not isinstance(extra, Mapping):
            raise BadConfig(origin=OPTION, detail=f"it is a table in JSON, and no {type(extra).__name__}")
        known = [each.name for each in fields(cls)]
        found: dict[str, Any] = {}
        for name, value in extra.items():
            if name not in known:
                near = get_close_matches(str(name), known, n=1)
                meant = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
                raise BadConfig(origin=OPTION, detail=f"unknown key {name!r}; {meant}")
            try:
                found[name] = _READ.get(name, _text)(value)
            except ValueError as error:
                raise BadConfig(origin=f"{OPTION}, {name}", detail=str(error)) from None
        return cls(**found)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"it is a text that says something, not {value!r}")
    return value


def _transport(value: object) -> str:
    if not isinstance(value, str) or value not in TRANSPORTS:
        raise ValueError(f"{value!r} is none of {', '.join(TRANSPORTS)}")
    return value


def _peers(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"it is a list of peers, such as ['10.0.0.5:7300'], not {value!r}")
    return tuple(map(_text, value))


def _memory(value: object) -> int:
    size = parse_size(value) if isinstance(value, str) else value
    if not isinstance(size, int) or isinstance(size, bool):
        raise ValueError(f"it is a size such as '1GiB', not {value!r}")  # noqa: TRY004 - as the parsers
    if size < MIN_MEMORY:
        raise ValueError(f"{value!r} is less than {format_size(MIN_MEMORY)}")
    return size


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"it is true or false, not {value!r}")  # noqa: TRY004 - as the parsers
    return value


_READ: Mapping[str, Callable[[object], Any]] = {
    "transport": _transport,
    "peers": _peers,
    "memory": _memory,
    "enable_weights_track": _truth,
}
"""How values are read that are no texts of any kind."""


def object_name(options: LoadOptions, model: str) -> str:
    """The object with a model's weights: the one that was named, else the model's own name.

    Of a directory that is the last part.
    """
    if options.object:
        return options.object
    return os.path.basename(os.path.abspath(model)) if os.path.isabs(model) or os.path.isdir(model) else model


def open_cluster(options: LoadOptions, environ: Mapping[str, str] | None = None) -> P2PStore:
    """A node of the cluster in this process, by the settings that hold for commands, too (``Settings``).

    The metadata server is the one that is named here, or in the settings, or else the one of the agent that runs. The
    node takes any free ports. Raises as ``Settings.load``, ``AgentClient.status`` and ``P2PStore``.
    """
    settings = Settings.load(environ=environ)
    metadata = options.metadata or settings.metadata
    if not metadata:
        metadata = str(AgentClient(Home.resolve(settings.home, environ)).status()["metadata"])
    host, _ = addresses.given_ports(settings.listen)
    return P2PStore(
        metadata,
        listen=host,
        advertise=settings.advertise or "",
        secret=settings.secret_source,
        insecure=settings.insecure,
        zone=settings.zone or "",
        lease_ttl=settings.lease_ttl,
        connections=settings.connections or 0,
        rdma_devices=settings.rdma_devices,
        credentials=credentials(settings),
    )


def lacking(
    parameters: Iterable[str], loaded: Collection[str], came: Collection[str], packed: Mapping[str, Sequence[str]]
) -> list[str]:
    """The weights of a model that nothing came for; of parameters that are made of several tensors, these.

    ``loaded`` are the parameters that the model says something came for, ``came`` the tensors. ``packed`` tells which
    modules' tensors are parts of one, as vLLM has it: ``{"qkv_proj": ["q_proj", "k_proj", "v_proj"]}``. Where none of
    the parts came by its name, the checkpoint calls them otherwise, and nothing is said of them.
    """
    found = []
    for name in parameters:
        if not name.endswith("weight"):  # of biases and scales, models make what a checkpoint has not
            continue
        if name not in loaded:
            found.append(name)
            continue
        path, _, kind = name.rpartition(".")
        above, _, module = path.rpartition(".")
        parts = [".".join(filter(None, (above, part, kind))) for part in packed.get(module, ())]
        some = [part for part in parts if part in came]
        if some:
            found += [part for part in parts if part not in came]
    return found


class ObjectWeights:
    """The tensors of an object, in a context that has a node of the cluster for as long as they come."""

    def __init__(
        self,
        options: LoadOptions,
        name: str,
        *,
        tied: bool = False,
        framework: str = "torch",
        open_store: Callable[[LoadOptions], P2PStore] = open_cluster,
    ) -> None:
        """``tied``: the engine takes the head of the model for its embeddings, and leaves out what there is of one."""
        self.name = name
        self.last = ""
        """The tensor that was handed out last; empty before the first, and when all have been."""
        self.came: set[str] = set()
        """Those that were handed out."""
        self._options = options
        self._tied = tied
        self._framework = framework
        self._open_store = open_store
        self._store: P2PStore | None = None
        self._some: Iterator[tuple[str, Any]] | None = None

    def __enter__(self) -> Self:
        self._store = self._open_store(self._options)
        return self

    def __exit__(self, *_: object) -> None:
        some, self._some = self._some, None
        if some is not None:
            some.close()  # type: ignore[attr-defined] # it is a generator
        if self._store is not None:
            self._store.close()

    def tensors(self, wanted: Callable[[str], bool] | None = None) -> Iterator[tuple[str, Any]]:
        """Names and tensors; once. Raises as ``iter_tensors``, and ``UsageError`` for a head that would be left out."""
        self._some = self._come(wanted)
        return self._some

    def _come(self, wanted: Callable[[str], bool] | None) -> Iterator[tuple[str, Any]]:
        assert self._store is not None  # noqa: S101 - it was entered
        options, began = self._options, time.monotonic()
        size = 0
        heads: dict[str, bytes] = {}
        embeddings: set[bytes] = set()
        for name, tensor in self._store.iter_tensors(
            self.name,
            framework=self._framework,
            include=wanted or (),
            path=options.path,
            transport=options.transport or "auto",
            peers=options.peers,
            memory=options.memory,
            note=lambda text: log.warning("%s", text),
        ):
            self.last = name
            self.came.add(name)
            size += tensor.nbytes
            if self._tied and name.endswith(HEAD):
                heads[name] = _digest(tensor)
            elif self._tied and name.endswith(EMBEDDINGS):
                embeddings.add(_digest(tensor))
            yield name, tensor
        self.last = ""
        different = [name for name, digest in heads.items() if digest not in embeddings]
        if different:
            raise UsageError(
                detail=f"the model's config.json says tie_word_embeddings, and {different[0]!r} of {self.name} is "
                "another tensor than its embeddings, which the engine would leave out: start it with "
                """--hf-overrides '{"tie_word_embeddings": false}'"""
            )
        seconds = time.monotonic() - began
        log.info(
            "%d tensors of %s, %s, came and were loaded in %.1f s",
            len(self.came), self.name, format_size(size), seconds,
        )  # fmt: skip


def _digest(tensor: Any) -> bytes:
    hashed = hasher("xxh3_128")()
    with byte_view(tensor, "a tensor") as view:
        hashed.update(view)
    return hashed.digest()
