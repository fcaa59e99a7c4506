"""What a ``P2PStore`` is made with, as the options of its node."""

from __future__ import annotations

from pathlib import Path

from engine import arguments
from engine.net import addresses
from p2pstore.agent.options import node_name, secret_for
from p2pstore.errors import UsageError
from p2pstore.node_options import NodeOptions


def store_options(
    node: str,
    listen: str,
    advertise: str,
    secret: bytes | Path | None,
    insecure: bool,  # noqa: FBT001 - as given
    zone: str,
    lease_ttl: int,
    connections: int,
    rdma_devices: str,
    state: Path | None,
) -> NodeOptions:
    """See ``P2PStore``. Raises ``UsageError``, and what reading the secret raises."""
    host, ports = addresses.given_ports(arguments.text(listen, "the address to listen on"))
    if secret is not None and not isinstance(secret, (bytes, Path)):
        raise UsageError(detail="the secret must be bytes, or the Path of its file")  # it is not shown
    state = None if state is None else Path(arguments.path(state, "the state directory"))
    source = secret_for(host, secret, insecure=insecure, fallback=state)
    return NodeOptions(
        name=node or node_name(),
        state=state,
        host=host,
        port=ports.start,
        last_port=ports.stop - 1,
        advertise=arguments.text(advertise, "the address to advertise"),
        secret=source,
        insecure=bool(insecure),
        zone=arguments.text(zone, "the zone"),
        ttl=arguments.whole(lease_ttl, "the lease's time to live", 1),
        connections=arguments.whole(connections, "the number of connections"),
        rdma_devices=arguments.text(rdma_devices, "the list of RDMA devices"),
        private=(source,) if isinstance(source, Path) else (),
    )
