"""What one client, and all of them, may take of a master."""

from __future__ import annotations

from engine.rpc.framing import MAX_FRAME

MAX_CONNECTIONS = 8192
"""Connections at a time. At one more, the one that has been still for longest is closed."""

MAX_KEPT_BYTES = 16 * MAX_FRAME
"""Of frames that are not whole yet, of all connections together. At more, the connection with the most is closed."""

FRAME_S = 30.0
"""How long a frame may take to come."""

MAX_UNSENT_BYTES = 4 << 20
"""Answers that a client has not read yet; at more its calls wait, and nothing more is read from it."""

UNSENT_S = 60.0
"""How long a client may leave so much unread."""

MAX_WAITING = 10_000
"""Calls that wait for somebody else's write, of all connections together; the next is answered at once."""

MAX_WAITING_BYTES = 64 << 20
"""What they take, more or less: a call may have some 100,000 keys, or one of 16 MiB."""

WAIT_S = 5.0
"""How long a put waits for another write of its key. Clients give their calls 30 s."""

MAX_GONE_CALLERS = 1000
"""Connections that are remembered after their end, to tell people why a hit rate is 0."""

MAX_UNKNOWN = 64
"""Different unknown calls that are counted by name for one connection."""

MAX_CLIENTS = 64
"""Clients, and tenants, that are remembered for one connection."""

SWEEP_S = 1.0
"""How often connections are looked at for the limits above."""

STOP_S = 5.0
"""How long answers may take to go out when the master ends."""
