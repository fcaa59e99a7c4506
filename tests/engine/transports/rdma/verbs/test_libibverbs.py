"""The structures for ctypes against the header of the libibverbs that is installed."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.transports.rdma.verbs import libibverbs as lib

HEADER = Path("/usr/include/infiniband/verbs.h")

STRUCTURES = {
    "ibv_device_attr": lib.DeviceAttr, "ibv_port_attr": lib.PortAttr, "ibv_global_route": lib.GlobalRoute,
    "ibv_ah_attr": lib.AddressAttr, "ibv_qp_cap": lib.QpCap, "ibv_qp_init_attr": lib.QpInitAttr,
    "ibv_qp_attr": lib.QpAttr, "ibv_sge": lib.Sge, "ibv_send_wr": lib.SendWr, "ibv_wc": lib.Wc,
    "ibv_context": lib.IbvContext, "ibv_comp_channel": lib.CompChannel, "ibv_mr": lib.Mr, "ibv_qp": lib.Qp,
    "ibv_gid_entry": lib.GidEntry,
}  # fmt: skip
WHOLE = set(STRUCTURES) - {"ibv_context", "ibv_qp", "ibv_port_attr"}
"""Of the others only the beginning is touched; to the last, newer headers add what the exported call does not fill."""

SPELT = {("ibv_send_wr", "remote_addr"): "wr.rdma.remote_addr", ("ibv_send_wr", "rkey"): "wr.rdma.rkey"}
CONSTANTS = {
    "IBV_QPT_RC": lib.QPT_RC, "IBV_QPS_INIT": lib.STATE_INIT, "IBV_QPS_RTR": lib.STATE_RTR,
    "IBV_QPS_RTS": lib.STATE_RTS, "IBV_SEND_SIGNALED": lib.SEND_SIGNALED, "IBV_QP_STATE": lib.MASK_STATE,
    "IBV_QP_ACCESS_FLAGS": lib.MASK_ACCESS, "IBV_QP_PKEY_INDEX": lib.MASK_PKEY, "IBV_QP_PORT": lib.MASK_PORT,
    "IBV_QP_AV": lib.MASK_ADDRESS, "IBV_QP_PATH_MTU": lib.MASK_MTU, "IBV_QP_TIMEOUT": lib.MASK_TIMEOUT,
    "IBV_QP_RETRY_CNT": lib.MASK_RETRY, "IBV_QP_RNR_RETRY": lib.MASK_RNR, "IBV_QP_RQ_PSN": lib.MASK_RQ_PSN,
    "IBV_QP_MAX_QP_RD_ATOMIC": lib.MASK_INITIATE, "IBV_QP_MIN_RNR_TIMER": lib.MASK_MIN_RNR,
    "IBV_QP_SQ_PSN": lib.MASK_SQ_PSN, "IBV_QP_MAX_DEST_RD_ATOMIC": lib.MASK_RESPOND,
    "IBV_QP_DEST_QPN": lib.MASK_NUMBER,
    "offsetof(struct ibv_context_ops, poll_cq) / 8": lib.POLL_CQ,
    "offsetof(struct ibv_context_ops, req_notify_cq) / 8": lib.REQ_NOTIFY_CQ,
    "offsetof(struct ibv_context_ops, post_send) / 8": lib.POST_SEND,
    "sizeof(struct ibv_context_ops) / 8": lib.OPERATIONS,
}  # fmt: skip


def expected() -> list[tuple[str, int]]:
    found = list(CONSTANTS.items())
    for name, structure in STRUCTURES.items():
        if name in WHOLE:
            found.append((f"sizeof(struct {name})", ctypes.sizeof(structure)))
        for field, *_ in structure._fields_:
            if field != "rest":
                spelt = SPELT.get((name, field), field)
                found.append((f"offsetof(struct {name}, {spelt})", getattr(structure, field).offset))
    return found


@pytest.mark.skipif(
    not HEADER.exists() or shutil.which("cc") is None,
    reason="NOT COMPARED WITH THE HEADER: libibverbs-dev or a C compiler is missing",
)
def test_every_offset_is_the_headers(tmp_path: Path) -> None:
    lines = "".join(f'printf("%ld\\n", (long)({name}));\n' for name, _ in expected())
    source = "#include <stddef.h>\n#include <stdio.h>\n#include <infiniband/verbs.h>\nint main(void) {\n"
    (tmp_path / "x.c").write_text(source + lines + "return 0; }\n")
    subprocess.run(["cc", "-o", str(tmp_path / "x"), str(tmp_path / "x.c")], check=True, timeout=60)
    done = subprocess.run([str(tmp_path / "x")], capture_output=True, text=True, check=True, timeout=10)
    told = [int(line) for line in done.stdout.split()]
    assert dict(zip([name for name, _ in expected()], told, strict=True)) == dict(expected())
