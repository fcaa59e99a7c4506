"""What programs import as ``mooncake.store`` where ``p2pstore.integrations.shim`` has put it there."""

from __future__ import annotations

from p2pstore.integrations.patient_store import PatientStore as MooncakeDistributedStore
from p2pstore.kv.client.compat_types import (
    BufferHandle,
    ObjectDataType,
    QueryTaskResponse,
    ReplicaDescriptor,
    ReplicaStatus,
    ReplicateConfig,
    SoftPinAction,
    TaskStatus,
    TaskType,
)

__all__ = [
    "BufferHandle",
    "MooncakeDistributedStore",
    "ObjectDataType",
    "QueryTaskResponse",
    "ReplicaDescriptor",
    "ReplicaStatus",
    "ReplicateConfig",
    "SoftPinAction",
    "TaskStatus",
    "TaskType",
]
