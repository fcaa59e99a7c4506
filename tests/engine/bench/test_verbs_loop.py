"""The yardsticks over RDMA: what can be checked without a device. The loop itself runs in ``tests/rdma``."""

from __future__ import annotations

import pytest

from engine.bench import Case, Operation, Plan, verbs_loop
from engine.bench.run import PERFTEST, SOCKET, VERBS
from engine.errors import BenchFailed, TransportUnavailable, UsageError

REPORT = """\
 #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]
{line}
---------------------------------------------------------------------------------------
"""


def test_the_report_of_perftest_is_read() -> None:
    output = REPORT.format(line=" 1048576    128              0.00               64.00  \t\t   0.000064")
    assert verbs_loop._read_output(output, "ib_read_bw", 3) == (128 << 20, 2.0)


def test_where_perftest_distrusts_the_clock_its_iterations_count() -> None:
    output = REPORT.format(line=" 65536      884              0.00               0.00   \t\t   0.000000")
    output = "Correlation coefficient r^2: 0.799581 < 0.9\n" + output
    assert verbs_loop._read_output(output, "ib_read_bw", 3) == (884 * 65536, 3.0)


@pytest.mark.parametrize("output", ["", REPORT.format(line=" 65536      0              0.00   0.00   0.0")])
def test_a_report_without_figures_is_a_failure(output: str) -> None:
    with pytest.raises(BenchFailed, match="no iterations"):
        verbs_loop._read_output(output, "ib_read_bw", 3)


def test_the_yardstick_fits_the_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    read, mixed = Case(Operation.READ, 1, 1, 1), Case(Operation.MIXED, 1, 1, 1)
    assert Plan([read]).yardstick == SOCKET
    monkeypatch.setattr(verbs_loop.shutil, "which", lambda name: f"/bin/{name}" if name == "ib_read_bw" else None)
    assert Plan([read], transport="rdma").yardstick == PERFTEST
    assert Plan([read, mixed], transport="rdma").yardstick == VERBS
    assert Plan([read], transport="rdma", target="elsewhere:1").yardstick == VERBS
    monkeypatch.setattr(verbs_loop.shutil, "which", lambda name: None)
    assert Plan([read], transport="rdma").yardstick == VERBS


def test_one_device_is_used_and_must_be_there() -> None:
    from engine.bench.targets import TargetAddress

    target = TargetAddress("127.0.0.1:1", 4096, 1, "127.0.0.1")
    with pytest.raises(UsageError, match="one device"):
        verbs_loop.PerftestInitiator(target, 1, target_device="a,b")
    with pytest.raises(TransportUnavailable):
        verbs_loop.PerftestInitiator(target, 1, "no-such-device")
