"""What programs import as ``mooncake.store`` where ``p2pstore.integrations.shim`` has put it there.

It is all that ``p2pstore.kv.client.compat`` has under upstream's names, with a client that holds no engine up.
"""

from __future__ import annotations

from p2pstore.integrations.patient_store import PatientStore
from p2pstore.kv.client import compat
from p2pstore.kv.client.compat_codec import CODEC


def exported() -> dict[str, object]:
    """Upstream's names, and what they stand for."""
    found: dict[str, object] = {name: getattr(compat, name) for name in compat.__all__}
    for kind in (compat.ObjectDataType, compat.ReplicaStatus, compat.TaskType, compat.TaskStatus):
        found.update(kind.__members__)
    found.update(RegisteredBufferPool=compat.BufferPool, RegisteredBufferLease=compat.BufferLease)
    return found | CODEC | {"MooncakeDistributedStore": PatientStore}
