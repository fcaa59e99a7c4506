"""What holds for all tests."""

from __future__ import annotations

import signal

# A shell that runs us in the background has us ignore SIGINT, and the processes that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
