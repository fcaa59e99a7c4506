"""The verbs through ctypes: needs libibverbs and nothing else, whatever Python this is.

Calls that may take long (registering, opening, making queue pairs) let other threads run, which pyverbs never does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import threading
from collections.abc import Sequence
from typing import Any

from engine import forks
from engine.transports.rdma.verbs import libibverbs as lib
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
    WorkRequest,
    failure,
)

MAX_GIDS = 1024
"""Entries of a port's GID table that are looked at; most devices have 16 to 256."""

POLL_AT_ONCE = 64
"""Completions that one call brings."""

MIN_RNR_TIMER = 12
"""0.64 ms; nothing here waits for a receiver, so it does not matter."""


class CtypesVerbs:
    """See ``Verbs``."""

    name = "ctypes"
    remaps = True

    def __init__(self) -> None:
        """Raises ``OSError`` where there is no libibverbs, ``AttributeError`` for one that is too old."""
        self._library = lib.load()

    def devices(self) -> list[str]:
        """See ``Verbs.devices``."""
        with self._list() as found:
            return list(found)

    def open(self, device: str) -> CtypesContext:
        """See ``Verbs.open``."""
        with self._list() as found:
            if device not in found:
                raise failure("ibv_open_device", device, errno.ENODEV)
            context = self._library.ibv_open_device(found[device])
        if not context:
            raise failure("ibv_open_device", device, ctypes.get_errno())
        return CtypesContext(self._library, device, context)

    @contextlib.contextmanager
    def _list(self) -> Any:
        count = ctypes.c_int(0)
        listed = self._library.ibv_get_device_list(ctypes.byref(count))
        try:
            # A kernel without any RDMA has no list; that is no error here.
            pointers = [listed[index] for index in range(count.value)] if listed else []
            yield {self._library.ibv_get_device_name(pointer).decode(): pointer for pointer in pointers}
        finally:
            if listed:
                self._library.ibv_free_device_list(listed)


class CtypesContext:
    """See ``Context``."""

    def __init__(self, library: ctypes.CDLL, device: str, context: Any) -> None:
        self.device = device
        self._library = library
        self._context = context
        forks.hold_descriptor(context.contents.cmd_fd)
        ops = context.contents.ops
        self.post_send = lib.PostSend(ops[lib.POST_SEND])
        self.poll_cq = lib.PollCq(ops[lib.POLL_CQ])
        self.req_notify = lib.ReqNotifyCq(ops[lib.REQ_NOTIFY_CQ])
        self._pd = library.ibv_alloc_pd(context)
        if not self._pd:
            code = ctypes.get_errno()
            library.ibv_close_device(context)
            raise failure("ibv_alloc_pd", device, code)

    def limits(self) -> Limits:
        """See ``Context.limits``."""
        attr = lib.DeviceAttr()
        self.check("ibv_query_device", self._library.ibv_query_device(self._context, attr))
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
        attr = lib.PortAttr()
        self.check("ibv_query_port", self._library.ibv_query_port(self._context, number, attr))
        state = PORT_STATES[attr.state] if attr.state < len(PORT_STATES) else str(attr.state)
        link = LinkLayer.ETHERNET if attr.link_layer == LinkLayer.ETHERNET else LinkLayer.INFINIBAND
        return PortInfo(state, link, attr.lid, 128 << attr.active_mtu, attr.max_msg_sz)

    def gids(self, port: int) -> list[Gid]:
        """See ``Context.gids``."""
        entries = (lib.GidEntry * MAX_GIDS)()
        size = ctypes.sizeof(lib.GidEntry)
        count = self._library._ibv_query_gid_table(self._context, entries, MAX_GIDS, 0, size)  # noqa: SLF001
        if count < 0:
            raise failure("ibv_query_gid_table", self.device, -count)
        return [
            Gid(each.gid_index, bytes(each.gid), GidType(each.gid_type), _netdev(each.ndev_ifindex))
            for each in entries[:count]
            if each.port_num == port and any(each.gid) and each.gid_type in set(GidType)
        ]

    def completion_queue(self, depth: int) -> CtypesCompletionQueue:
        """See ``Context.completion_queue``."""
        return CtypesCompletionQueue(self, self._library, self._context, depth)

    def queue_pair(self, queue: Any, depth: int) -> CtypesQueuePair:
        """See ``Context.queue_pair``."""
        return CtypesQueuePair(self, self._library, self._pd, queue, depth)

    def register(self, address: int, length: int, access: Access, remote: int | None = None) -> Registration:
        """See ``Context.register``."""
        ctypes.set_errno(0)
        if remote is None or remote == address:
            remote = address
            region = self._library.ibv_reg_mr(self._pd, address, length, access)
        else:
            region = self._library.ibv_reg_mr_iova(self._pd, address, length, remote, access)
        if not region:
            raise failure("ibv_reg_mr", self.device, ctypes.get_errno(), pinning=length)
        return CtypesRegistration(self._library, self.device, region, remote)

    def close(self) -> None:
        """See ``Context.close``."""
        context, self._context = self._context, None
        if context:
            self._library.ibv_dealloc_pd(self._pd)
            self._library.ibv_close_device(context)

    def check(self, call: str, code: int) -> None:
        """Raise for what a call returned, unless that is 0."""
        if code:
            raise failure(call, self.device, code if code > 0 else ctypes.get_errno())


class CtypesRegistration:
    """See ``Registration``."""

    def __init__(self, library: ctypes.CDLL, device: str, region: Any, remote: int) -> None:
        self._library = library
        self._device = device
        self._region = region
        self.remote = remote
        self.lkey: int = region.contents.lkey
        self.rkey: int = region.contents.rkey
        self.length: int = region.contents.length

    def close(self) -> None:
        """See ``Registration.close``."""
        region, self._region = self._region, None
        if region:
            code = self._library.ibv_dereg_mr(region)
            if code:
                raise failure("ibv_dereg_mr", self._device, code)


class CtypesCompletionQueue:
    """See ``CompletionQueue``."""

    def __init__(self, context: CtypesContext, library: ctypes.CDLL, pointer: Any, depth: int) -> None:
        self._context = context
        self._library = library
        self._channel = library.ibv_create_comp_channel(pointer)
        if not self._channel:
            raise failure("ibv_create_comp_channel", context.device, ctypes.get_errno())
        self.fd: int = self._channel.contents.fd
        self.pointer = library.ibv_create_cq(pointer, depth, None, self._channel, 0)
        if not self.pointer:
            code = ctypes.get_errno()
            library.ibv_destroy_comp_channel(self._channel)
            raise failure("ibv_create_cq", context.device, code)
        # Should an event be gone when it is taken, the call must say so and not wait for the next.
        os.set_blocking(self.fd, False)
        self._found = (lib.Wc * POLL_AT_ONCE)()

    def arm(self) -> None:
        """See ``CompletionQueue.arm``."""
        self._context.check("ibv_req_notify_cq", self._context.req_notify(self.pointer, 0))

    def acknowledge(self) -> None:
        """See ``CompletionQueue.acknowledge``."""
        queue, unused = ctypes.c_void_p(), ctypes.c_void_p()
        if not self._library.ibv_get_cq_event(self._channel, ctypes.byref(queue), ctypes.byref(unused)):
            self._library.ibv_ack_cq_events(self.pointer, 1)

    def poll(self, limit: int) -> list[Completion]:
        """See ``CompletionQueue.poll``."""
        found = self._found
        count = self._context.poll_cq(self.pointer, min(limit, POLL_AT_ONCE), ctypes.addressof(found))
        if count < 0:
            raise failure("ibv_poll_cq", self._context.device, errno.EIO)
        return [Completion(each.wr_id, each.status) for each in found[:count]]

    def close(self) -> None:
        """See ``CompletionQueue.close``."""
        pointer, self.pointer = self.pointer, None
        if pointer:
            code = self._library.ibv_destroy_cq(pointer)
            self._library.ibv_destroy_comp_channel(self._channel)
            self._context.check("ibv_destroy_cq", code)


class CtypesQueuePair:
    """See ``QueuePair``. Its work requests are built in arrays that are made once."""

    def __init__(self, context: CtypesContext, library: ctypes.CDLL, pd: Any, queue: Any, depth: int) -> None:
        self._context = context
        self._library = library
        self._depth = max(1, depth)
        attr = lib.QpInitAttr(send_cq=queue.pointer, recv_cq=queue.pointer, qp_type=lib.QPT_RC, sq_sig_all=0)
        attr.cap.max_send_wr, attr.cap.max_recv_wr = self._depth, 1
        attr.cap.max_send_sge, attr.cap.max_recv_sge = 1, 1
        self._qp = library.ibv_create_qp(pd, attr)
        if not self._qp:
            raise failure("ibv_create_qp", context.device, ctypes.get_errno())
        self.number: int = self._qp.contents.qp_num
        self._pointer = ctypes.cast(self._qp, ctypes.c_void_p).value
        self._requests = (lib.SendWr * self._depth)()
        self._pieces = (lib.Sge * self._depth)()
        self._first = ctypes.addressof(self._requests)
        self._bad = ctypes.c_void_p()
        size = ctypes.sizeof(lib.Sge)
        for index, request in enumerate(self._requests):
            request.sg_list = ctypes.addressof(self._pieces) + index * size
            request.num_sge = 1
            request.send_flags = lib.SEND_SIGNALED
        self._lock = threading.Lock()

    def connect(self, route: QueuePairPath, access: Access) -> None:
        """See ``QueuePair.connect``."""
        attr = lib.QpAttr(
            qp_state=lib.STATE_INIT, pkey_index=route.pkey_index, port_num=route.port, qp_access_flags=access
        )
        self._modify(attr, lib.MASK_INIT)
        attr = lib.QpAttr(
            qp_state=lib.STATE_RTR,
            path_mtu=(route.mtu // 128).bit_length() - 1,
            dest_qp_num=route.number,
            rq_psn=route.packet,
            max_dest_rd_atomic=route.respond,
            min_rnr_timer=MIN_RNR_TIMER,
        )
        address = attr.ah_attr
        address.is_global, address.port_num, address.dlid, address.sl = 1, route.port, route.lid, route.service_level
        ctypes.memmove(ctypes.addressof(address.grh.dgid), route.gid, 16)
        address.grh.sgid_index, address.grh.hop_limit = route.gid_index, route.hops
        address.grh.traffic_class = route.traffic_class
        self._modify(attr, lib.MASK_RTR)
        attr = lib.QpAttr(
            qp_state=lib.STATE_RTS,
            sq_psn=route.packet,
            max_rd_atomic=route.initiate,
            timeout=route.timeout,
            retry_cnt=route.retries,
            rnr_retry=route.retries,
        )
        self._modify(attr, lib.MASK_RTS)

    def post(self, requests: Sequence[WorkRequest]) -> int:
        """See ``QueuePair.post``."""
        count = min(len(requests), self._depth)
        if not count:
            return 0
        wr_size = ctypes.sizeof(lib.SendWr)
        with self._lock:
            for index in range(count):
                given, request, piece = requests[index], self._requests[index], self._pieces[index]
                request.wr_id, request.opcode = given.id, given.opcode
                request.remote_addr, request.rkey = given.remote, given.rkey
                request.next = self._first + (index + 1) * wr_size if index + 1 < count else None
                piece.addr, piece.length, piece.lkey = given.local, given.length, given.lkey
            code = self._context.post_send(self._pointer, self._first, ctypes.byref(self._bad))
            if not code:
                return count
            if code == errno.ENOMEM and self._bad.value:  # the queue is full
                return int(self._bad.value - self._first) // wr_size
        raise failure("ibv_post_send", self._context.device, code)

    def close(self) -> None:
        """See ``QueuePair.close``."""
        qp, self._qp = self._qp, None
        if qp:
            self._context.check("ibv_destroy_qp", self._library.ibv_destroy_qp(qp))

    def _modify(self, attr: lib.QpAttr, mask: int) -> None:
        self._context.check("ibv_modify_qp", self._library.ibv_modify_qp(self._qp, attr, mask))


def _netdev(index: int) -> str:
    try:
        return socket.if_indextoname(index) if index else ""
    except OSError:
        return ""
