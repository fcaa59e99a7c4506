"""The structures of libibverbs that we touch, and its functions, for ctypes.

Source: rdma-core's ``libibverbs/verbs.h``, whose structures have not changed since libibverbs 1 (the library's name
carries that number, and a test compares every offset with the installed header). ``ibv_post_send``, ``ibv_poll_cq`` and
``ibv_req_notify_cq`` are inline functions there: they call through the table of operations in ``ibv_context``.
"""

from __future__ import annotations

import ctypes
from ctypes import (
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_int,
    c_size_t,
    c_uint,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any, ClassVar

SONAME = "libibverbs.so.1"

OPERATIONS = 32
POLL_CQ, REQ_NOTIFY_CQ, POST_SEND = 11, 12, 25
"""Places in ``ibv_context_ops``."""

QPT_RC = 2
STATE_INIT, STATE_RTR, STATE_RTS = 1, 2, 3
SEND_SIGNALED = 2

MASK_STATE, MASK_ACCESS, MASK_PKEY, MASK_PORT = 1 << 0, 1 << 3, 1 << 4, 1 << 5
MASK_ADDRESS, MASK_MTU, MASK_TIMEOUT, MASK_RETRY, MASK_RNR = 1 << 7, 1 << 8, 1 << 9, 1 << 10, 1 << 11
MASK_RQ_PSN, MASK_INITIATE, MASK_MIN_RNR, MASK_SQ_PSN = 1 << 12, 1 << 13, 1 << 15, 1 << 16
MASK_RESPOND, MASK_NUMBER = 1 << 17, 1 << 20

MASK_INIT = MASK_STATE | MASK_PKEY | MASK_PORT | MASK_ACCESS
MASK_RTR = MASK_STATE | MASK_ADDRESS | MASK_MTU | MASK_NUMBER | MASK_RQ_PSN | MASK_RESPOND | MASK_MIN_RNR
MASK_RTS = MASK_STATE | MASK_TIMEOUT | MASK_RETRY | MASK_RNR | MASK_SQ_PSN | MASK_INITIATE


class DeviceAttr(Structure):
    """``struct ibv_device_attr``."""

    _fields_: ClassVar = [
        ("fw_ver", c_char * 64), ("node_guid", c_uint64), ("sys_image_guid", c_uint64), ("max_mr_size", c_uint64),
        ("page_size_cap", c_uint64), ("vendor_id", c_uint32), ("vendor_part_id", c_uint32), ("hw_ver", c_uint32),
        ("max_qp", c_int), ("max_qp_wr", c_int), ("device_cap_flags", c_uint), ("max_sge", c_int),
        ("max_sge_rd", c_int), ("max_cq", c_int), ("max_cqe", c_int), ("max_mr", c_int), ("max_pd", c_int),
        ("max_qp_rd_atom", c_int), ("max_ee_rd_atom", c_int), ("max_res_rd_atom", c_int),
        ("max_qp_init_rd_atom", c_int), ("max_ee_init_rd_atom", c_int), ("atomic_cap", c_int), ("max_ee", c_int),
        ("max_rdd", c_int), ("max_mw", c_int), ("max_raw_ipv6_qp", c_int), ("max_raw_ethy_qp", c_int),
        ("max_mcast_grp", c_int), ("max_mcast_qp_attach", c_int), ("max_total_mcast_qp_attach", c_int),
        ("max_ah", c_int), ("max_fmr", c_int), ("max_map_per_fmr", c_int), ("max_srq", c_int), ("max_srq_wr", c_int),
        ("max_srq_sge", c_int), ("max_pkeys", c_uint16), ("local_ca_ack_delay", c_uint8), ("phys_port_cnt", c_uint8),
    ]  # fmt: skip


class PortAttr(Structure):
    """``struct ibv_port_attr``, of which the exported ``ibv_query_port`` fills all but the last field."""

    _fields_: ClassVar = [
        ("state", c_int), ("max_mtu", c_int), ("active_mtu", c_int), ("gid_tbl_len", c_int),
        ("port_cap_flags", c_uint32), ("max_msg_sz", c_uint32), ("bad_pkey_cntr", c_uint32),
        ("qkey_viol_cntr", c_uint32), ("pkey_tbl_len", c_uint16), ("lid", c_uint16), ("sm_lid", c_uint16),
        ("lmc", c_uint8), ("max_vl_num", c_uint8), ("sm_sl", c_uint8), ("subnet_timeout", c_uint8),
        ("init_type_reply", c_uint8), ("active_width", c_uint8), ("active_speed", c_uint8), ("phys_state", c_uint8),
        ("link_layer", c_uint8), ("flags", c_uint8), ("port_cap_flags2", c_uint16),
    ]  # fmt: skip


class GlobalRoute(Structure):
    """``struct ibv_global_route``."""

    _fields_: ClassVar = [
        ("dgid", c_uint64 * 2), ("flow_label", c_uint32), ("sgid_index", c_uint8), ("hop_limit", c_uint8),
        ("traffic_class", c_uint8),
    ]  # fmt: skip


class AddressAttr(Structure):
    """``struct ibv_ah_attr``."""

    _fields_: ClassVar = [
        ("grh", GlobalRoute), ("dlid", c_uint16), ("sl", c_uint8), ("src_path_bits", c_uint8),
        ("static_rate", c_uint8), ("is_global", c_uint8), ("port_num", c_uint8),
    ]  # fmt: skip


class QpCap(Structure):
    """``struct ibv_qp_cap``."""

    _fields_: ClassVar = [
        ("max_send_wr", c_uint32), ("max_recv_wr", c_uint32), ("max_send_sge", c_uint32), ("max_recv_sge", c_uint32),
        ("max_inline_data", c_uint32),
    ]  # fmt: skip


class QpInitAttr(Structure):
    """``struct ibv_qp_init_attr``."""

    _fields_: ClassVar = [
        ("qp_context", c_void_p), ("send_cq", c_void_p), ("recv_cq", c_void_p), ("srq", c_void_p), ("cap", QpCap),
        ("qp_type", c_int), ("sq_sig_all", c_int),
    ]  # fmt: skip


class QpAttr(Structure):
    """``struct ibv_qp_attr``."""

    _fields_: ClassVar = [
        ("qp_state", c_int), ("cur_qp_state", c_int), ("path_mtu", c_int), ("path_mig_state", c_int),
        ("qkey", c_uint32), ("rq_psn", c_uint32), ("sq_psn", c_uint32), ("dest_qp_num", c_uint32),
        ("qp_access_flags", c_uint), ("cap", QpCap), ("ah_attr", AddressAttr), ("alt_ah_attr", AddressAttr),
        ("pkey_index", c_uint16), ("alt_pkey_index", c_uint16), ("en_sqd_async_notify", c_uint8),
        ("sq_draining", c_uint8), ("max_rd_atomic", c_uint8), ("max_dest_rd_atomic", c_uint8),
        ("min_rnr_timer", c_uint8), ("port_num", c_uint8), ("timeout", c_uint8), ("retry_cnt", c_uint8),
        ("rnr_retry", c_uint8), ("alt_port_num", c_uint8), ("alt_timeout", c_uint8), ("rate_limit", c_uint32),
    ]  # fmt: skip


class Sge(Structure):
    """``struct ibv_sge``."""

    _fields_: ClassVar = [("addr", c_uint64), ("length", c_uint32), ("lkey", c_uint32)]


class SendWr(Structure):
    """``struct ibv_send_wr``; of its union ``wr`` the member ``rdma``, and the rest as room."""

    _fields_: ClassVar = [
        ("wr_id", c_uint64), ("next", c_void_p), ("sg_list", c_void_p), ("num_sge", c_int), ("opcode", c_int),
        ("send_flags", c_uint), ("imm_data", c_uint32), ("remote_addr", c_uint64), ("rkey", c_uint32),
        ("rest", c_uint8 * 76),
    ]  # fmt: skip


class Wc(Structure):
    """``struct ibv_wc``."""

    _fields_: ClassVar = [
        ("wr_id", c_uint64), ("status", c_int), ("opcode", c_int), ("vendor_err", c_uint32), ("byte_len", c_uint32),
        ("imm_data", c_uint32), ("qp_num", c_uint32), ("src_qp", c_uint32), ("wc_flags", c_uint),
        ("pkey_index", c_uint16), ("slid", c_uint16), ("sl", c_uint8), ("dlid_path_bits", c_uint8),
    ]  # fmt: skip


class IbvContext(Structure):
    """The start of ``struct ibv_context``."""

    _fields_: ClassVar = [("device", c_void_p), ("ops", c_void_p * OPERATIONS), ("cmd_fd", c_int), ("async_fd", c_int)]


class CompChannel(Structure):
    """``struct ibv_comp_channel``."""

    _fields_: ClassVar = [("context", c_void_p), ("fd", c_int), ("refcnt", c_int)]


class Mr(Structure):
    """``struct ibv_mr``."""

    _fields_: ClassVar = [
        ("context", c_void_p), ("pd", c_void_p), ("addr", c_void_p), ("length", c_size_t), ("handle", c_uint32),
        ("lkey", c_uint32), ("rkey", c_uint32),
    ]  # fmt: skip


class Qp(Structure):
    """The start of ``struct ibv_qp``."""

    _fields_: ClassVar = [
        ("context", c_void_p), ("qp_context", c_void_p), ("pd", c_void_p), ("send_cq", c_void_p),
        ("recv_cq", c_void_p), ("srq", c_void_p), ("handle", c_uint32), ("qp_num", c_uint32),
    ]  # fmt: skip


class GidEntry(Structure):
    """``struct ibv_gid_entry``."""

    _fields_: ClassVar = [
        ("gid", c_uint64 * 2), ("gid_index", c_uint32), ("port_num", c_uint32), ("gid_type", c_uint32),
        ("ndev_ifindex", c_uint32),
    ]  # fmt: skip


# Function pointers of the table. They do microseconds of work in this process's memory, so the interpreter's lock is
# kept: giving it up and taking it again costs more, and another thread may hold it for milliseconds.
PostSend = ctypes.PYFUNCTYPE(c_int, c_void_p, c_void_p, POINTER(c_void_p))
PollCq = ctypes.PYFUNCTYPE(c_int, c_void_p, c_int, c_void_p)
ReqNotifyCq = ctypes.PYFUNCTYPE(c_int, c_void_p, c_int)

_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "ibv_get_device_list": (POINTER(c_void_p), POINTER(c_int)),
    "ibv_free_device_list": (None, POINTER(c_void_p)),
    "ibv_get_device_name": (c_char_p, c_void_p),
    "ibv_open_device": (POINTER(IbvContext), c_void_p),
    "ibv_close_device": (c_int, POINTER(IbvContext)),
    "ibv_query_device": (c_int, POINTER(IbvContext), POINTER(DeviceAttr)),
    "ibv_query_port": (c_int, POINTER(IbvContext), c_uint8, POINTER(PortAttr)),
    "ibv_alloc_pd": (c_void_p, POINTER(IbvContext)),
    "ibv_dealloc_pd": (c_int, c_void_p),
    "ibv_create_comp_channel": (POINTER(CompChannel), POINTER(IbvContext)),
    "ibv_destroy_comp_channel": (c_int, POINTER(CompChannel)),
    "ibv_create_cq": (c_void_p, POINTER(IbvContext), c_int, c_void_p, POINTER(CompChannel), c_int),
    "ibv_destroy_cq": (c_int, c_void_p),
    "ibv_get_cq_event": (c_int, POINTER(CompChannel), POINTER(c_void_p), POINTER(c_void_p)),
    "ibv_ack_cq_events": (None, c_void_p, c_uint),
    "ibv_create_qp": (POINTER(Qp), c_void_p, POINTER(QpInitAttr)),
    "ibv_modify_qp": (c_int, POINTER(Qp), POINTER(QpAttr), c_int),
    "ibv_destroy_qp": (c_int, POINTER(Qp)),
    "ibv_reg_mr": (POINTER(Mr), c_void_p, c_void_p, c_size_t, c_int),
    "ibv_dereg_mr": (c_int, POINTER(Mr)),
    "ibv_reg_mr_iova": (POINTER(Mr), c_void_p, c_void_p, c_size_t, c_uint64, c_int),
    "_ibv_query_gid_table": (ctypes.c_ssize_t, POINTER(IbvContext), POINTER(GidEntry), c_size_t, c_uint32, c_size_t),
}


def load() -> ctypes.CDLL:
    """The library of rdma-core 32 or newer, with the types of its functions set.

    Raises ``OSError`` where there is none, ``AttributeError`` for an older one.
    """
    library = ctypes.CDLL(SONAME, use_errno=True)
    for name, (result, *arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
