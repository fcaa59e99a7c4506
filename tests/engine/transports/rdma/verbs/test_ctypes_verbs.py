"""What is handed to libibverbs and made of its answers, with a library of Python functions in its place."""

from __future__ import annotations

import ctypes
import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import LockedMemoryLimit, MooncakeError, VerbsFailed
from engine.transports.rdma.verbs import libibverbs as lib
from engine.transports.rdma.verbs.ctypes_verbs import (
    CtypesCompletionQueue,
    CtypesContext,
    CtypesQueuePair,
    CtypesVerbs,
)
from engine.transports.rdma.verbs.fake_verbs import mapped_gid
from engine.transports.rdma.verbs.interface import (
    Access,
    Completion,
    Gid,
    GidType,
    LinkLayer,
    QueuePairPath,
    WorkOpcode,
    WorkRequest,
)

PD, CQ = 0x1000, 0x2000


class Library:
    """libibverbs for one device. ``calls`` are the names called; a name in ``fails`` fails with that errno."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails: dict[str, int] = {}
        self.posted: list[lib.SendWr] = []
        self.pieces: list[lib.Sge] = []
        self.modified: list[tuple[lib.QpAttr, int]] = []
        self.registered: list[tuple[int, ...]] = []
        self.gids: list[tuple[int, bytes, int, int]] = []
        self.done: list[tuple[int, int]] = []
        self.full_after = -1
        self.read, self.write = os.pipe()
        self._kept: list[Any] = []
        context = lib.IbvContext()
        self._table = (lib.PollCq(self._poll), lib.ReqNotifyCq(self._arm), lib.PostSend(self._post))
        for place, function in zip((lib.POLL_CQ, lib.REQ_NOTIFY_CQ, lib.POST_SEND), self._table, strict=True):
            context.ops[place] = ctypes.cast(function, ctypes.c_void_p).value
        self.context = ctypes.pointer(context)

    def __getattr__(self, name: str) -> Any:
        """Any other function: it succeeds, or fails as ordered."""

        def call(*arguments: Any) -> int:
            return self._code(name)

        return call

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)

    def _code(self, name: str) -> int:
        self.calls.append(name)
        return self.fails.get(name, 0)

    def _made(self, name: str, thing: ctypes.Structure) -> Any:
        """A pointer to it; null, and an errno, where it fails."""
        code = self._code(name)
        if code:
            ctypes.set_errno(code)
            return None
        self._kept.append(thing)
        return ctypes.pointer(thing)

    def ibv_alloc_pd(self, _: Any) -> int | None:
        if code := self._code("ibv_alloc_pd"):
            ctypes.set_errno(code)
            return None
        return PD

    def ibv_query_device(self, _: Any, attr: lib.DeviceAttr) -> int:
        attr.phys_port_cnt, attr.max_qp, attr.max_qp_wr, attr.max_cqe = 2, 100, 9000, 500
        attr.max_qp_init_rd_atom, attr.max_qp_rd_atom, attr.max_mr_size = 16, 8, 1 << 40
        return self._code("ibv_query_device")

    def ibv_query_port(self, _: Any, number: int, attr: lib.PortAttr) -> int:
        attr.state, attr.link_layer, attr.lid, attr.active_mtu, attr.max_msg_sz = 4, number, 7, 5, 1 << 30
        return self._code("ibv_query_port")

    def _ibv_query_gid_table(self, _: Any, entries: Any, most: int, flags: int, size: int) -> int:
        assert size == ctypes.sizeof(lib.GidEntry)
        if code := self._code("_ibv_query_gid_table"):
            return -code
        for entry, (port, raw, kind, netdev) in zip(entries, self.gids, strict=False):
            ctypes.memmove(entry.gid, raw, 16)
            entry.port_num, entry.gid_type, entry.ndev_ifindex, entry.gid_index = port, kind, netdev, len(raw)
        return len(self.gids)

    def ibv_reg_mr(self, _: Any, *arguments: int) -> Any:
        self.registered.append(arguments)
        return self._made("ibv_reg_mr", lib.Mr(lkey=3, rkey=4, length=arguments[1]))

    def ibv_reg_mr_iova(self, _: Any, *arguments: int) -> Any:
        self.registered.append(arguments)
        return self._made("ibv_reg_mr_iova", lib.Mr(lkey=3, rkey=4, length=arguments[1]))

    def ibv_create_comp_channel(self, _: Any) -> Any:
        return self._made("ibv_create_comp_channel", lib.CompChannel(fd=self.read))

    def ibv_create_cq(self, *_: Any) -> int | None:
        if code := self._code("ibv_create_cq"):
            ctypes.set_errno(code)
            return None
        return CQ

    def ibv_create_qp(self, _: Any, attr: lib.QpInitAttr) -> Any:
        assert (attr.qp_type, attr.sq_sig_all) == (lib.QPT_RC, 0)
        return self._made("ibv_create_qp", lib.Qp(qp_num=77))

    def ibv_modify_qp(self, _: Any, attr: lib.QpAttr, mask: int) -> int:
        self.modified.append((lib.QpAttr.from_buffer_copy(attr), mask))
        return self._code("ibv_modify_qp")

    def _poll(self, queue: int, most: int, found: int) -> int:
        assert queue == CQ
        taken, self.done = self.done[:most], self.done[most:]
        for (number, status), wc in zip(taken, (lib.Wc * max(1, most)).from_address(found), strict=False):
            wc.wr_id, wc.status = number, status
        return -1 if "poll" in self.fails else len(taken)

    def _arm(self, queue: int, _: int) -> int:
        assert queue == CQ
        return self._code("arm")

    def _post(self, pair: int, first: int | None, bad: Any) -> int:
        """Follow the chain as a driver does."""
        while first:
            if len(self.posted) == self.full_after:
                bad[0] = first
                return self.fails.get("post", errno.ENOMEM)
            request = lib.SendWr.from_buffer_copy(lib.SendWr.from_address(first))
            self.posted.append(request)
            assert request.num_sge == 1
            assert request.send_flags == lib.SEND_SIGNALED
            self.pieces.append(lib.Sge.from_buffer_copy(lib.Sge.from_address(request.sg_list)))
            first = request.next
        return 0


@pytest.fixture
def library() -> Any:
    made = Library()
    yield made
    made.close()


@pytest.fixture
def context(library: Any) -> CtypesContext:
    return CtypesContext(library, "mlx5_0", library.context)


def request(number: int) -> WorkRequest:
    return WorkRequest(number, WorkOpcode.READ, 1 << 40 | number, 3, 100 + number, 1 << 50 | number, 4)


def pair_of(context: CtypesContext, library: Any, depth: int = 4) -> CtypesQueuePair:
    return CtypesQueuePair(context, library, PD, SimpleNamespace(pointer=CQ), depth)


def test_a_chain_of_requests_is_posted_in_one_call(context: CtypesContext, library: Any) -> None:
    pair = pair_of(context, library)
    assert pair.number == 77
    assert pair.post([request(number) for number in (1, 2, 3)]) == 3
    assert pair.post([]) == 0
    assert pair.post([request(4)]) == 1  # what stood in the arrays before is not posted again
    assert [each.wr_id for each in library.posted] == [1, 2, 3, 4]
    for number, posted, piece in zip((1, 2, 3, 4), library.posted, library.pieces, strict=True):
        assert (posted.opcode, posted.remote_addr, posted.rkey) == (WorkOpcode.READ, 1 << 50 | number, 4)
        assert (piece.addr, piece.length, piece.lkey) == (1 << 40 | number, 100 + number, 3)


@pytest.mark.parametrize("fit", [0, 1, 3])
def test_how_many_fit_is_told_by_the_first_that_did_not(context: CtypesContext, library: Any, fit: int) -> None:
    library.full_after = fit
    assert pair_of(context, library).post([request(number) for number in range(4)]) == fit


def test_no_more_than_the_depth_is_handed_over(context: CtypesContext, library: Any) -> None:
    assert pair_of(context, library, depth=2).post([request(number) for number in range(5)]) == 2
    assert [each.wr_id for each in library.posted] == [0, 1]


def test_another_error_of_posting_is_raised(context: CtypesContext, library: Any) -> None:
    library.full_after, library.fails["post"] = 1, errno.EINVAL
    with pytest.raises(VerbsFailed, match="ibv_post_send failed on mlx5_0: Invalid argument"):
        pair_of(context, library).post([request(1), request(2)])


def test_a_queue_pair_becomes_ready_in_three_steps(context: CtypesContext, library: Any) -> None:
    gid = mapped_gid("10.1.0.2")
    route = QueuePairPath(
        port=2, gid_index=3, gid=gid, lid=9, number=55, mtu=1024, initiate=5, respond=6, packet=8,
        service_level=1, traffic_class=104, pkey_index=7, timeout=12, retries=4,
    )  # fmt: skip
    pair_of(context, library).connect(route, Access.REMOTE_READ)
    (init, mask), (rtr, second), (rts, third) = library.modified
    assert (mask, second, third) == (lib.MASK_INIT, lib.MASK_RTR, lib.MASK_RTS)
    assert (init.qp_state, init.pkey_index, init.port_num, init.qp_access_flags) == (lib.STATE_INIT, 7, 2, 4)
    assert (rtr.qp_state, rtr.path_mtu, rtr.dest_qp_num, rtr.rq_psn) == (lib.STATE_RTR, 3, 55, 8)
    assert rtr.max_dest_rd_atomic == 6
    address = rtr.ah_attr
    assert (address.is_global, address.port_num, address.dlid, address.sl) == (1, 2, 9, 1)
    assert bytes(address.grh.dgid) == gid
    assert (address.grh.sgid_index, address.grh.hop_limit, address.grh.traffic_class) == (3, 16, 104)
    assert (rts.qp_state, rts.max_rd_atomic, rts.timeout, rts.retry_cnt) == (lib.STATE_RTS, 5, 12, 4)


@pytest.mark.parametrize(("mtu", "code"), [(256, 1), (512, 2), (1024, 3), (2048, 4), (4096, 5)])
def test_an_mtu_is_told_by_its_code(context: CtypesContext, library: Any, mtu: int, code: int) -> None:
    pair_of(context, library).connect(QueuePairPath(1, 0, bytes(16), 0, 5, mtu), Access.REMOTE_READ)
    assert library.modified[1][0].path_mtu == code


def test_memory_is_registered_under_another_address_where_one_is_given(context: CtypesContext, library: Any) -> None:
    plain = context.register(8192, 100, Access.LOCAL_WRITE)
    assert (plain.remote, plain.lkey, plain.rkey, plain.length) == (8192, 3, 4, 100)
    same = context.register(8192, 100, Access.LOCAL_WRITE, 8192)
    other = context.register(8192, 100, Access.REMOTE_READ, 1 << 40)
    assert (same.remote, other.remote) == (8192, 1 << 40)
    assert library.registered == [(8192, 100, 1), (8192, 100, 1), (8192, 100, 1 << 40, 4)]
    plain.close()
    plain.close()
    assert library.calls.count("ibv_dereg_mr") == 1


def test_what_cannot_be_registered_is_told(context: CtypesContext, library: Any) -> None:
    library.fails["ibv_reg_mr"] = errno.ENOMEM
    with pytest.raises(LockedMemoryLimit, match="100 bytes"):
        context.register(8192, 100, Access.LOCAL_WRITE)
    library.fails["ibv_reg_mr"] = errno.EINVAL
    with pytest.raises(VerbsFailed, match="ibv_reg_mr failed on mlx5_0: Invalid argument"):
        context.register(8192, 100, Access.LOCAL_WRITE)
    library.fails = {"ibv_dereg_mr": errno.EBUSY}
    with pytest.raises(VerbsFailed, match="busy"):
        context.register(8192, 100, Access.LOCAL_WRITE).close()


def test_completions_are_polled_a_bounded_number_at_a_time(context: CtypesContext, library: Any) -> None:
    queue = CtypesCompletionQueue(context, library, library.context, 100)
    library.done = [(number, number % 2) for number in range(100)]
    assert queue.poll(3) == [Completion(0, 0), Completion(1, 1), Completion(2, 0)]
    assert [each.id for each in queue.poll(1000)] == list(range(3, 67))
    assert [each.id for each in queue.poll(1000)] == list(range(67, 100))
    assert queue.poll(1000) == []
    library.fails["poll"] = 1
    with pytest.raises(VerbsFailed, match="ibv_poll_cq"):
        queue.poll(1)


def test_a_queue_can_be_waited_for_and_never_blocks(context: CtypesContext, library: Any) -> None:
    queue = CtypesCompletionQueue(context, library, library.context, 100)
    assert queue.fd == library.read
    assert not os.get_blocking(queue.fd)
    queue.arm()
    queue.acknowledge()
    assert library.calls[-3:] == ["arm", "ibv_get_cq_event", "ibv_ack_cq_events"]
    library.fails["ibv_get_cq_event"] = -1
    queue.acknowledge()
    assert library.calls[-1] == "ibv_get_cq_event"  # the event was gone: there is none to acknowledge
    queue.close()
    queue.close()
    assert library.calls[-2:] == ["ibv_destroy_cq", "ibv_destroy_comp_channel"]


def test_nothing_half_made_is_left(context: CtypesContext, library: Any) -> None:
    library.fails = {"ibv_create_cq": errno.ENOMEM}
    with pytest.raises(VerbsFailed, match="ibv_create_cq"):
        context.completion_queue(4)
    assert library.calls[-1] == "ibv_destroy_comp_channel"
    library.fails = {"ibv_create_comp_channel": errno.EMFILE}
    with pytest.raises(VerbsFailed, match="Too many open files"):
        context.completion_queue(4)
    library.fails = {"ibv_alloc_pd": errno.ENOMEM}
    with pytest.raises(VerbsFailed, match="ibv_alloc_pd"):
        CtypesContext(library, "mlx5_0", library.context)
    assert library.calls[-1] == "ibv_close_device"
    library.fails = {"ibv_create_qp": errno.ENOMEM}
    with pytest.raises(VerbsFailed, match="ibv_create_qp failed on mlx5_0: Cannot allocate memory"):
        context.queue_pair(SimpleNamespace(pointer=CQ), 4)


def test_a_device_is_described(context: CtypesContext, library: Any) -> None:
    limits = context.limits()
    assert (limits.ports, limits.queue_pairs, limits.queue_depth) == (2, 100, 500)
    assert (limits.initiate, limits.respond, limits.region_bytes) == (16, 8, 1 << 40)
    port = context.port(2)
    assert (port.state, port.link, port.lid, port.mtu) == ("ACTIVE", LinkLayer.ETHERNET, 7, 4096)
    assert context.port(1).link is LinkLayer.INFINIBAND
    library.fails["ibv_query_port"] = errno.EINVAL
    with pytest.raises(VerbsFailed, match="ibv_query_port"):
        context.port(3)
    context.close()
    context.close()
    assert library.calls[-2:] == ["ibv_dealloc_pd", "ibv_close_device"]


def test_gids_are_those_of_the_port_that_are_set_and_known(context: CtypesContext, library: Any) -> None:
    raw = mapped_gid("10.1.0.2")
    loopback = 1  # its name is lo everywhere
    library.gids = [(1, raw, 2, loopback), (2, raw, 2, 0), (1, bytes(16), 2, 0), (1, raw, 9, 0), (1, raw, 1, 0)]
    assert context.gids(1) == [Gid(16, raw, GidType.ROCE_V2, "lo"), Gid(16, raw, GidType.ROCE_V1, "")]
    library.fails["_ibv_query_gid_table"] = errno.EOPNOTSUPP
    with pytest.raises(VerbsFailed, match="ibv_query_gid_table"):
        context.gids(1)


def test_the_library_of_this_machine_lists_its_devices() -> None:
    try:
        verbs = CtypesVerbs()
    except (OSError, AttributeError) as error:
        pytest.skip(f"no usable libibverbs: {error}")
    assert all(isinstance(name, str) for name in verbs.devices())
    with pytest.raises(MooncakeError, match="ibv_open_device failed on nothing_like_it"):
        verbs.open("nothing_like_it")
