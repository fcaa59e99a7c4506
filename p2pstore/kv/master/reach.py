"""Why a master does not answer, as far as it shows from here: its port for clients is tried, too."""

from __future__ import annotations

import socket

from engine.net import addresses

TRY_SECONDS = 3.0
"""For the port to accept a connection."""


def clients_port(host: str, port: int) -> str:
    """What is to be said of the port at which a master serves clients, where its metrics port does not answer."""
    address = addresses.join(host, port)
    try:
        socket.create_connection((host, port), timeout=TRY_SECONDS).close()
    except socket.gaierror:
        return f"the name {host!r} is not known here"
    except TimeoutError:
        return f"its port for clients, {address}, does not answer either: the host is off, or a firewall is between"
    except ConnectionRefusedError:
        return f"its port for clients, {address}, refuses connections, too: no master runs there"
    except OSError as error:
        return f"its port for clients, {address}, cannot be reached either: {(error.strerror or str(error)).lower()}"
    return f"its port for clients, {address}, accepts them: the metrics port may be another one, or on loopback alone"
