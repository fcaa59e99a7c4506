"""The verbs through pyverbs, of rdma-core 44 to 59.

pyverbs never gives up the interpreter's lock: whatever takes long here stops every thread of the process. So nothing is
waited for inside it, and callers register memory in small pieces. Its traps, found by reading and by running it:

- ``SGE`` and ``SendWR`` are never freed, so each queue pair makes its own once and uses them again.
- It tells a completion channel's descriptor only since 59; before, it is the descriptor that has come with the channel.
- It has no call for ``ibv_reg_mr_iova``: peers name a region by its address in this process.
- Importing it sets up the root logger.
- A parent closes its children, and a closed object crashes whoever touches it: each is dropped at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from engine.transports.rdma.verbs.interface import (
    MAX_DEPTH,
    PORT_STATES,
    Access,
    Completion,
    Gid,
    GidType,
    Limits,
    LinkLayer,
    PortInfo,
    QueuePairPath,
    Registration,
    WorkOpcode,
    WorkRequest,
    failure,
)


@contextlib.contextmanager
def _keeping_the_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


with _keeping_the_root_logger():
    from pyverbs.addr import GID, AHAttr, GlobalRoute
    from pyverbs.cq import CQ, CompChannel
    from pyverbs.device import Context, get_device_list
    from pyverbs.mr import MR
    from pyverbs.pd import PD
    from pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError
    from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
    from pyverbs.wr import SGE, SendWR

    try:
        from pyverbs import libibverbs_enums as enums  # rdma-core 59
    except ImportError:
        from pyverbs import enums  # rdma-core 44

MAX_GIDS = 1024
_MIN_RNR_TIMER = 12
_EVENT_LINK = "infinibandevent"
_opening = threading.Lock()


class PyverbsVerbs:
    """See ``Verbs``."""

    name = "pyverbs"
    remaps = False

    def devices(self) -> list[str]:
        """See ``Verbs.devices``."""
        try:
            return [device.name.decode() for device in get_device_list()]
        except PyverbsRDMAError:  # a kernel without any RDMA
            return []

    def open(self, device: str) -> PyverbsContext:
        """See ``Verbs.open``."""
        with _told("ibv_open_device", device):
            return PyverbsContext(device)


class PyverbsContext:
    """See ``Context``."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._context: Any = Context(name=device)
        self._pd: Any = PD(self._context)

    def limits(self) -> Limits:
        """See ``Context.limits``."""
        with _told("ibv_query_device", self.device):
            attr = self._context.query_device()
        return Limits(
            ports=attr.phys_port_cnt,
            queue_pairs=attr.max_qp,
            queue_depth=min(attr.max_qp_wr, attr.max_cqe, MAX_DEPTH),
            initiate=attr.max_qp_init_rd_atom,
            respond=attr.max_qp_rd_atom,
            region_bytes=attr.max_mr_size,
        )

    def port(self, number: int) -> PortInfo:
        """See ``Context.port``."""
        with _told("ibv_query_port", self.device):
            attr = self._context.query_port(number)
        state = PORT_STATES[attr.state] if attr.state < len(PORT_STATES) else str(attr.state)
        link = LinkLayer.ETHERNET if attr.link_layer == LinkLayer.ETHERNET else LinkLayer.INFINIBAND
        return PortInfo(state, link, attr.lid, 128 << attr.active_mtu, attr.max_msg_sz)

    def gids(self, port: int) -> list[Gid]:
        """See ``Context.gids``."""
        with _told("ibv_query_gid_table", self.device):
            found = []
            for entry in self._context.query_gid_table(MAX_GIDS):
                raw = bytes.fromhex(str(self._context.query_gid(port, entry.gid_index)).replace(":", ""))
                if entry.port_num == port and any(raw) and entry.gid_type in set(GidType):
                    found.append(Gid(entry.gid_index, raw, GidType(entry.gid_type), _netdev(entry.ndev_ifindex)))
            return found

    def completion_queue(self, depth: int) -> PyverbsCompletionQueue:
        """See ``Context.completion_queue``."""
        with _told("ibv_create_cq", self.device):
            return PyverbsCompletionQueue(self.device, self._context, depth)

    def queue_pair(self, queue: Any, depth: int) -> PyverbsQueuePair:
        """See ``Context.queue_pair``."""
        with _told("ibv_create_qp", self.device):
            return PyverbsQueuePair(self.device, self._pd, queue, depth)

    def register(self, address: int, length: int, access: Access, remote: int | None = None) -> Registration:
        """See ``Context.register``; raises ``ValueError`` for another ``remote`` than the address."""
        if remote not in {None, address}:
            raise ValueError("pyverbs registers no memory under another address")
        with _told("ibv_reg_mr", self.device, pinning=length):
            return PyverbsRegistration(self.device, MR(self._pd, length, int(access), address), address, length)

    def close(self) -> None:
        """See ``Context.close``."""
        context, self._context, self._pd = self._context, None, None
        if context is not None:
            with _told("ibv_close_device", self.device):
                context.close()


class PyverbsRegistration:
    """See ``Registration``."""

    def __init__(self, device: str, region: Any, address: int, length: int) -> None:
        self._device = device
        self._region = region
        self.remote = address
        self.length = length
        self.lkey: int = region.lkey
        self.rkey: int = region.rkey

    def close(self) -> None:
        """See ``Registration.close``."""
        region, self._region = self._region, None
        if region is not None:
            with _told("ibv_dereg_mr", self._device):
                region.close()


class PyverbsCompletionQueue:
    """See ``CompletionQueue``."""

    def __init__(self, device: str, context: Any, depth: int) -> None:
        self._device = device
        with _opening:
            before = set() if hasattr(CompChannel, "fd") else _event_descriptors()
            self._channel: Any = CompChannel(context)
            fd = self._channel.fd if hasattr(CompChannel, "fd") else (_event_descriptors() - before).pop()
        self.fd: int = fd
        self.queue: Any = CQ(context, depth, None, self._channel, 0)
        # Should an event be gone when it is taken, the call must fail: waiting, it would stop the whole process.
        os.set_blocking(self.fd, False)

    def arm(self) -> None:
        """See ``CompletionQueue.arm``."""
        with _told("ibv_req_notify_cq", self._device):
            self.queue.req_notify()

    def acknowledge(self) -> None:
        """See ``CompletionQueue.acknowledge``."""
        with contextlib.suppress(PyverbsError):  # it was not there any more
            self._channel.get_cq_event(self.queue)
            self.queue.ack_events(1)

    def poll(self, limit: int) -> list[Completion]:
        """See ``CompletionQueue.poll``."""
        with _told("ibv_poll_cq", self._device):
            _, found = self.queue.poll(limit)
        return [Completion(each.wr_id, each.status) for each in found]

    def close(self) -> None:
        """See ``CompletionQueue.close``."""
        queue, self.queue = self.queue, None
        if queue is not None:
            with _told("ibv_destroy_cq", self._device):
                queue.close()
                self._channel.close()


class PyverbsQueuePair:
    """See ``QueuePair``."""

    def __init__(self, device: str, pd: Any, queue: Any, depth: int) -> None:
        self._device = device
        cap = QPCap(max_send_wr=max(1, depth), max_recv_wr=1, max_send_sge=1, max_recv_sge=1)
        kind = enums.ibv_qp_type.IBV_QPT_RC
        self._qp: Any = QP(pd, QPInitAttr(qp_type=kind, scq=queue.queue, rcq=queue.queue, cap=cap, sq_sig_all=0))
        self.number: int = self._qp.qp_num
        piece = SGE(0, 0, 0)
        signaled = enums.ibv_send_flags.IBV_SEND_SIGNALED
        self._requests = {
            opcode: SendWR(opcode=int(opcode), num_sge=1, sg=[piece], send_flags=signaled) for opcode in WorkOpcode
        }
        self._pieces = {}
        for opcode, request in self._requests.items():
            self._pieces[opcode] = SGE(0, 0, 0)
            request.sg_list = self._pieces[opcode]

    def connect(self, route: QueuePairPath, access: Access) -> None:
        """See ``QueuePair.connect``."""
        attr = QPAttr(port_num=route.port)
        attr.pkey_index = route.pkey_index
        attr.qp_access_flags = int(access)
        attr.path_mtu = (route.mtu // 128).bit_length() - 1
        attr.dest_qp_num = route.number
        attr.rq_psn = attr.sq_psn = route.packet
        attr.max_rd_atomic, attr.max_dest_rd_atomic = route.initiate, route.respond
        attr.min_rnr_timer, attr.timeout = _MIN_RNR_TIMER, route.timeout
        attr.retry_cnt = attr.rnr_retry = route.retries
        there = GlobalRoute(
            dgid=GID(_gid_text(route.gid)),
            sgid_index=route.gid_index,
            hop_limit=route.hops,
            traffic_class=route.traffic_class,
        )
        attr.ah_attr = AHAttr(gr=there, is_global=1, port_num=route.port, dlid=route.lid, sl=route.service_level)
        with _told("ibv_modify_qp", self._device):
            self._qp.to_rts(attr)

    def post(self, requests: Sequence[WorkRequest]) -> int:
        """See ``QueuePair.post``."""
        for done, given in enumerate(requests):
            request, piece = self._requests[given.opcode], self._pieces[given.opcode]
            piece.addr, piece.length, piece.lkey = given.local, given.length, given.lkey
            request.wr_id = given.id
            request.set_wr_rdma(given.rkey, given.remote)
            try:
                self._qp.post_send(request)
            except PyverbsRDMAError as error:
                if done:  # the queue is full, or will say again what is wrong
                    return done
                raise failure("ibv_post_send", self._device, error.error_code) from None
        return len(requests)

    def close(self) -> None:
        """See ``QueuePair.close``."""
        qp, self._qp = self._qp, None
        if qp is not None:
            with _told("ibv_destroy_qp", self._device):
                qp.close()


@contextlib.contextmanager
def _told(call: str, device: str, *, pinning: int = 0) -> Iterator[None]:
    """Turn pyverbs' errors into ours."""
    try:
        yield
    except PyverbsRDMAError as error:
        raise failure(call, device, max(0, error.error_code), pinning=pinning) from None
    except PyverbsError as error:
        raise failure(f"{call} ({error})", device, 0) from None


def _gid_text(raw: bytes) -> str:
    return ":".join(raw[at : at + 2].hex() for at in range(0, 16, 2))


def _netdev(index: int) -> str:
    try:
        return socket.if_indextoname(index) if index else ""
    except OSError:
        return ""


def _event_descriptors() -> set[int]:
    """The process's descriptors that are completion channels."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            if _EVENT_LINK in os.readlink(f"/proc/self/fd/{name}"):
                found.add(int(name))
    return found
