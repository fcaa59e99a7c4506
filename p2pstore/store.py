"""The Python API: a node inside your own process, for files, directories and memory.

::

    with P2PStore(metadata="etcd://10.0.0.1:2379", listen="10.0.0.7") as store:
        store.register("models/llama", "/data/llama")               # a file or a directory, served in place
        store.register("weights/step-1000", {"w": array, "b": bias})  # memory, served in place
        store.get("models/other", "/data/other")
        store.get_into("weights/step-999", {"w": array, "b": bias})
        tensors = store.load_tensors("models/llama", include=["model.layers.0.*"])  # by name, of safetensors files

The node runs on an event loop in a thread of its own; every method blocks until it is done and may be called from any
thread but that one. Registered memory must not change while it is registered: peers check hashes, and would refuse it.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, overload

from engine import arguments, forks
from engine.etcd.credentials import EtcdCredentials
from p2pstore.calls.given import (
    check_layout_alone,
    given_choice,
    given_path,
    given_selection,
    notes_only,
    progress_only,
    spread_request,
    tensor_request,
    way,
)
from p2pstore.calls.listed import listed
from p2pstore.calls.node_thread import NodeThread
from p2pstore.calls.shared import check_no_share, shared_request
from p2pstore.calls.store_options import store_options
from p2pstore.calls.streamed import streamed
from p2pstore.calls.watched import watched
from p2pstore.node import Node
from p2pstore.objects.choices import DEFAULT_HASH
from p2pstore.objects.memory_objects import Buffers, lent_by_gpus
from p2pstore.pull.get import GetRequest
from p2pstore.pull.tensor_outlet import Outlet
from p2pstore.pull.tensor_stream import MEMORY, MIN_MEMORY
from p2pstore.tensors.ranks import Rule

if TYPE_CHECKING:
    from typing_extensions import Self

WHAT = "this P2PStore"
"""What errors call it."""


class P2PStore:
    """A node of the cluster in this process.

    Raises ``MetadataUnavailable`` when the metadata server does not answer, ``ListenRefused`` for an open address with
    neither ``secret`` nor ``insecure``, ``UsageError`` where the system refuses a thread. A node that cannot go on,
    since a part of it does nothing but fail, leaves the cluster by itself; every method but ``close`` then raises
    ``NodeEnded``, which says why.
    """

    def __init__(
        self,
        metadata: str,
        *,
        node: str = "",
        listen: str = "127.0.0.1",
        advertise: str = "",
        secret: bytes | Path | None = None,
        insecure: bool = False,
        zone: str = "",
        lease_ttl: int = 10,
        connections: int = 0,
        rdma_devices: str = "all",
        state: Path | None = None,
        credentials: EtcdCredentials | None = None,
    ) -> None:
        """``metadata`` is a URL (``etcd://a:2379,b:2379``; ``mooncake node status`` shows an agent's).

        ``listen`` is an address, an interface or a network, and ``:PORT`` or ``:FIRST-LAST`` if not any will do;
        ``advertise`` is what others are told, if that is another address. ``rdma_devices`` are the RDMA devices to use,
        joined by commas, or ``all`` or ``none``. ``connections`` are those to each peer, 0 as many as suit machine and
        object. ``state`` is a directory in which to remember registered files; by default nothing outlives the object.
        ``secret`` is the cluster's, or its file, which is read again when it changes; on loopback it is by default the
        one that this user's agents share, unless the node is ``insecure``.
        """
        arguments.text(metadata, "the metadata URL")
        options = store_options(
            node, listen, advertise, secret, insecure, zone, lease_ttl, connections, rdma_devices, state
        )
        if credentials is not None:
            arguments.instance(credentials, EtcdCredentials, "the credentials")
        self._thread = NodeThread(WHAT, options, metadata, credentials)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        forks.refuse_to_be_sent(WHAT)

    @property
    def node(self) -> str:
        """This node's name."""
        return self._open().name

    @property
    def control(self) -> str:
        """This node's control address, which others may name with ``--peer``."""
        return self._open().record.control

    def register(
        self,
        name: str,
        source: str | os.PathLike[str] | Buffers,
        *,
        hash: str = DEFAULT_HASH,  # noqa: A002 - the name that the command line and the manifest use
        chunk_size: int = 0,
        force: bool = False,
        tags: Sequence[str] = (),
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        everything: bool = False,
    ) -> dict[str, Any]:
        """Serve a file, a directory, a buffer or several named buffers under ``name``; nothing is copied.

        ``tags`` lead to it from then on, as ``name:tag``. Of a directory, ``include`` and ``exclude`` are patterns of
        what to take and what to leave out; ``everything`` takes what is left out by default, too.
        ``p2pstore.objects.selection`` says how and what.
        Buffers are memory as docs/memory.md describes it: bytes, arrays, mappings, tensors of the host or of a GPU,
        whose current stream is waited for. Returns name, manifest, size, chunk_size, chunks, files and seconds. Raises
        as ``p2pstore.holding.register``, ``UsageError`` for a bad buffer, ``GpuUnavailable`` and ``GpuFailed``.
        """
        node = self._open()
        chunk_size = arguments.whole(chunk_size, "the chunk size")
        taken = given_selection(include, exclude, everything)
        how: dict[str, Any] = {"hash_name": hash, "chunk_size": chunk_size, "force": force}
        how["tags"] = arguments.texts(tags, "the tags")
        if isinstance(source, (str, os.PathLike)):
            path = given_path(source, "what is registered")
            return self._thread.call(node.register(path, name, **how, selection=taken))
        with lent_by_gpus(source) as lent:
            return self._thread.call(node.register_memory(name, lent, **how))

    def register_many(
        self,
        sources: Mapping[str, str | os.PathLike[str]],
        *,
        hash: str = DEFAULT_HASH,  # noqa: A002 - see ``register``
        chunk_size: int = 0,
        force: bool = False,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        everything: bool = False,
    ) -> dict[str, Any]:
        """Serve many files and directories, by name; they share their writes to the metadata store.

        What is taken of directories is said as for ``register``. Returns objects, failed, size and seconds; see
        ``p2pstore.holding.register``. Raises ``MetadataUnavailable``.
        """
        arguments.instance(sources, Mapping, "what is registered")  # type: ignore[type-abstract]
        items = [(given_path(source, f"what is registered as {name!r}"), name) for name, source in sources.items()]
        chunk_size = arguments.whole(chunk_size, "the chunk size")
        taken = given_selection(include, exclude, everything)
        node = self._open()
        return self._thread.call(
            node.register_many(items, hash_name=hash, chunk_size=chunk_size, force=force, selection=taken)
        )

    def get(
        self,
        name: str,
        dest: str | os.PathLike[str],
        *,
        transport: str = "auto",
        peers: Sequence[str] = (),
        seed: bool = True,
        force: bool = False,
        wipe: bool = False,
        update: bool = False,
        tensors: Sequence[str] = (),
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        byte_range: str = "",
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Bring an object to ``dest``, verified; an interrupted get goes on where it was.

        ``name`` may go on with the path of a file or a directory in the object. ``include`` and ``exclude`` choose
        among its files, as in ``register``; ``byte_range`` is of one file, as ``0-99``, ``100-`` or ``-100``. Of such
        a part whole files are served, by the next node of the same state, too.

        ``force`` replaces a file there, or a directory that is an earlier version of an object; ``wipe`` deletes
        whatever is in the directory; ``update`` replaces another version of this object, whose digest is ``replaced``
        in what is returned, and nothing else. An empty directory is filled, and a link is followed.
        ``tensors`` are patterns as ``include`` of ``load_tensors``: ``dest`` then gets safetensors files with just
        those tensors, which are not served.
        ``progress(done, total)`` is called in bytes, from the node's thread. Returns name, manifest, dest, size,
        bytes_pulled, bytes_reused, seconds, transport, peers, seeding, and of a part how many tensors or files
        there are.
        """
        dest = given_path(dest, "the destination")
        transport, peers = way(transport, peers)
        request = GetRequest(
            arguments.text(name, "the name"),
            dest,
            transport=transport,
            peers=peers,
            seed=bool(seed),
            force=bool(force),
            wipe=bool(wipe),
            update=bool(update),
            tensors=arguments.texts(tensors, "the patterns of tensors"),
            choice=given_choice(include, exclude, byte_range),
        )
        return asdict(self._thread.call(self._open().get(request, progress_only(progress))))

    def get_into(
        self,
        name: str,
        buffers: Buffers,
        *,
        transport: str = "auto",
        peers: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Bring an object into memory, received in place: one writable buffer, or one for each file by its path.

        A tensor or array on a GPU is filled by way of a ring of pinned memory, behind what its current stream has to
        do; when this returns, all of it is there, for every stream. docs/memory.md says what is taken.

        Each must have exactly its file's size. Raises ``UsageError`` where they do not fit, ``GpuUnavailable`` and
        ``GpuFailed``. When it raises, what the buffers hold is undefined; but whether it returns or raises,
        KeyboardInterrupt included, nothing writes to them afterwards, and nothing holds them: a mapping can be closed.
        ``progress`` is as in ``get``. Returns name, manifest, size, bytes_pulled, bytes_reused, seconds, transport and
        peers.
        """
        emit = progress_only(progress)
        transport, peers = way(transport, peers)
        node = self._open()
        with lent_by_gpus(buffers, writable=True) as lent:
            return self._thread.call(node.get_into(name, lent, transport=transport, peers=peers, emit=emit))

    @overload
    def load_tensors(
        self,
        name: str,
        *,
        device: str = "cpu",
        devices: None = None,
        layout: str = "replicate",
        share: str = "",
        include: Sequence[str] | Callable[[str], bool] = (),
        rank: tuple[int, int] | None = None,
        cut: Rule | None = None,
        framework: str = "torch",
        path: str = "",
        transport: str = "auto",
        peers: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]: ...

    @overload
    def load_tensors(
        self,
        name: str,
        *,
        device: str = "cpu",
        devices: Sequence[str],
        layout: str = "replicate",
        share: str = "",
        include: Sequence[str] | Callable[[str], bool] = (),
        rank: tuple[int, int] | None = None,
        cut: Rule | None = None,
        framework: str = "torch",
        path: str = "",
        transport: str = "auto",
        peers: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> list[dict[str, Any]]: ...

    def load_tensors(
        self,
        name: str,
        *,
        device: str = "cpu",
        devices: Sequence[str] | None = None,
        layout: str = "replicate",
        share: str = "",
        include: Sequence[str] | Callable[[str], bool] = (),
        rank: tuple[int, int] | None = None,
        cut: Rule | None = None,
        framework: str = "torch",
        path: str = "",
        transport: str = "auto",
        peers: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any] | builtins.list[dict[str, Any]]:
        """Bring the tensors of an object's safetensors files into memory, verified; of the rest only their headers.

        ``framework`` is ``torch`` or ``numpy``. For a GPU ``device`` is ``cuda:0`` or the like; what comes there waits
        for what this thread's current stream has to do, and is there when this returns. Of many files and names,
        ``include`` has patterns of the names that are wanted (``model.layers.0.*``), or is a function that says of a
        name whether it is, and ``path`` names a directory or a file in the object. With ``rank``, (rank, ranks) of
        tensor parallelism, each tensor is the rank's slice: as the conventions of Megatron, vLLM and transformers have
        it by the names of layers, heads being kept whole by the ``config.json`` beside them. ``cut`` says it where
        names do not: a table from patterns, or a function of name and shape, to the dimension that is cut, to
        (dimension, part, parts), or to None for all of the tensor; what a table does not have, and where a function
        returns ``NotImplemented``, the conventions tell.

        ``devices`` are several GPUs, of which one may be named twice. Each chunk then comes once for all of them:
        with the ``layout`` ``replicate`` each gets the same, and with ``shard`` the first of N gets the slices of
        rank (0, N), the next those of (1, N), and so on.

        ``share="host"`` is for one process a GPU, as torchrun starts them: those of a host that load the same object
        at once get each chunk once for all. ``device`` is then ``cuda:LOCAL_RANK`` by default, and with ``shard`` the
        rank is ``(LOCAL_RANK, LOCAL_WORLD_SIZE)``. All must load it: who does not come is waited for 30 s. See
        docs/memory.md.

        Chunks are brought whole: slices along a later dimension than the first save memory, and little of the network.
        Returns tensors by name, and for ``devices`` a list of that, in their order. Those of one file share one piece
        of a device's memory, which lives as long as any of them.
        ``transport``, ``peers`` and ``progress`` are as in ``get``. Raises ``UsageError`` for what does not fit
        together, ``TensorNotFound``, ``BadTensors`` for files that say of themselves what cannot be, ``StorageError``
        where there is too little memory, ``GpuUnavailable``, and as ``get_into``.
        """
        emit = progress_only(progress)
        if share and devices is None:
            mine, launch = shared_request(
                share, os.environ, name, device, layout, include, rank, cut, framework, path, transport, peers
            )
            return self._thread.call(self._open().load_tensors(mine, emit, launch))
        if devices is not None:
            check_no_share(share)
            spread = spread_request(
                name, device, devices, layout, include, rank, cut, framework, path, transport, peers
            )
            return self._thread.call(self._open().spread_tensors(spread, emit))
        check_layout_alone(layout)
        request = tensor_request(name, device, include, rank, cut, framework, path, transport, peers)
        return self._thread.call(self._open().load_tensors(request, emit))

    def iter_tensors(
        self,
        name: str,
        *,
        device: str = "cpu",
        include: Sequence[str] | Callable[[str], bool] = (),
        rank: tuple[int, int] | None = None,
        cut: Rule | None = None,
        framework: str = "torch",
        path: str = "",
        transport: str = "auto",
        peers: Sequence[str] = (),
        memory: int = MEMORY,
        note: Callable[[str], None] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """As ``load_tensors``, but names and tensors one after the other, in the order in which they lie, as they come.

        Each has memory of its own. At most ``memory`` bytes are used for those that are on their way or wait to be
        taken, the last one that was taken among them; a single tensor may be larger. What comes first is the files'
        headers, with their chunks. Whoever takes tensors may be slow. Closing the iterator, or letting go of it, ends
        the get. ``note`` is told, from the node's thread, of what takes long.

        Raises as ``load_tensors``: what is wrong with the arguments at once, and the rest when the first tensor, or
        the next, is asked for.
        """
        request = tensor_request(name, device, include, rank, cut, framework, path, transport, peers)
        outlet = Outlet(arguments.whole(memory, "the memory for tensors", MIN_MEMORY))
        emit = notes_only(note)
        self._open()

        def bring() -> None:
            self._thread.call(self._open().stream_tensors(request, outlet, emit))

        return streamed(f"tensors-{name}", outlet, bring)

    def list(self, prefix: str = "") -> Iterator[dict[str, Any]]:
        """Every object whose name begins with ``prefix``, with how many nodes hold it."""
        return listed(self._thread.call, self._open, prefix)

    def info(self, name: str) -> dict[str, Any]:
        """One object: its files, and who holds how much of it. Raises ``ObjectNotFound``."""
        return self._thread.call(self._open().info(name))

    def history(self, name: str) -> Sequence[dict[str, Any]]:
        """The versions of an object, the newest first, each with its tags and holders. Raises ``ObjectNotFound``."""
        answer = self._thread.call(self._open().history(arguments.text(name, "the name")))
        found: Sequence[dict[str, Any]] = answer["versions"]
        return found

    def watch(
        self,
        name: str,
        *,
        initial: bool = False,
        timeout: float | None = None,
        note: Callable[[str], None] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Each new version of an object, or of ``name:tag``, from this call on: name, tag, reference, manifest, size...

        The first is the ``initial`` one if that is wanted. Of versions that came while none was asked for, the last
        counts. It ends when none has come for ``timeout`` seconds, and goes on while the metadata server does not
        answer, of which ``note`` is told. Raises ``UsageError``, ``BadName`` and ``MetadataUnavailable`` at once.
        """
        return watched(self._thread.call, self._open, name, initial=initial, timeout=timeout, note=note)

    def tag(self, name: str, *tags: str) -> dict[str, Any]:
        """Have tags lead to what ``name`` stands for (or ``name:tag``, ``name@sha256:digest``), for all nodes.

        Returns name, manifest, and for each tag where it led ``before``. Raises ``BadTag`` and ``ObjectNotFound``.
        """
        return self._thread.call(self._open().tag(arguments.text(name, "the name"), arguments.texts(tags, "the tags")))

    def tags(self, name: str) -> Sequence[dict[str, Any]]:
        """The tags of an object, each with its version and how many nodes hold that. Raises ``ObjectNotFound``."""
        answer = self._thread.call(self._open().tags(arguments.text(name, "the name")))
        found: Sequence[dict[str, Any]] = answer["tags"]
        return found

    def untag(self, name: str) -> dict[str, Any]:
        """Remove the tag ``name:tag``; what it led to stays. Raises ``TagNotFound``."""
        return self._thread.call(self._open().untag(arguments.text(name, "the name")))

    def unregister(self, name: str) -> dict[str, Any]:
        """Withdraw what this node has under ``name``; registered memory may change again afterwards."""
        return self._thread.call(self._open().unregister(name))

    def close(self) -> None:
        """Leave the cluster and end the thread; twice is harmless.

        Calls under way in other threads raise ``Closed``, and so do later ones. It may be called from any thread, from
        a signal's handler, at the interpreter's exit, and from a callback, where it begins the end and does not wait
        for it. In a forked child it does nothing.
        """
        self._thread.close()

    def _open(self) -> Node:
        """The node. Raises ``Closed``, ``NodeEnded`` or ``ForkedProcess``."""
        return self._thread.node()
