"""What holds for all tests."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A shell that runs us in the background has us ignore SIGINT, and the processes that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The C library keeps what threads have freed of pieces up to 32 MB each, once such pieces were freed: hundreds of MB by
# the end of a run. With a threshold that is set, 1 MB, larger ones go back to the system at once.
_M_MMAP_THRESHOLD = -3
if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)

# An example's time is the machine's affair: on a busy one the first run of an example may take long and the second not,
# which Hypothesis would call flaky.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nodes on loopback share their user's secret; a run of the tests has one that is not the developer's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
