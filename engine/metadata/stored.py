"""Segments in a metadata server, whichever it is."""

from __future__ import annotations

from engine.errors import SegmentNotFound
from engine.metadata import records
from engine.metadata.base import FoundSegment, KeyValueStore, RpcEndpoint, SegmentDirectory
from engine.protocol.segment import SegmentDescriptor


class StoredDirectory(SegmentDirectory):
    """Keeps segments in a ``KeyValueStore`` under upstream's keys."""

    def __init__(self, store: KeyValueStore, cluster: str = "") -> None:
        """``cluster`` is ``MC_METADATA_CLUSTER_ID``. The directory closes the store."""
        self.url = store.url
        self._store = store
        self._cluster = cluster
        self._published: RpcEndpoint | None = None

    def publish(self, descriptor: SegmentDescriptor, rpc: RpcEndpoint) -> None:
        """See ``SegmentDirectory.publish``."""
        if rpc != self._published:
            key, value = records.rpc_key(descriptor.name, self._cluster), records.encode_rpc(rpc)
            # Some of upstream's servers refuse a second PUT of this key, be it equal.
            if self._store.get(key) != value:
                self._store.put(key, value)
            self._published = rpc
        self._store.put(records.segment_key(descriptor.name, self._cluster), records.encode_segment(descriptor))

    def withdraw(self, name: str) -> None:
        """See ``SegmentDirectory.withdraw``."""
        self._published = None
        self._store.delete(records.rpc_key(name, self._cluster))
        self._store.delete(records.segment_key(name, self._cluster))

    def endpoint(self, name: str) -> RpcEndpoint:
        """See ``SegmentDirectory.endpoint``."""
        return records.decode_rpc(self._get(records.rpc_key(name, self._cluster), name), name=name)

    def resolve(self, name: str) -> FoundSegment:
        """See ``SegmentDirectory.resolve``."""
        value = self._get(records.segment_key(name, self._cluster), name)
        descriptor = records.decode_segment(value, name=name)
        at = self.endpoint(descriptor.name)
        return FoundSegment(descriptor, at.host, at.port)

    def close(self) -> None:
        """See ``SegmentDirectory.close``."""
        self._store.close()

    def _get(self, key: str, name: str) -> bytes:
        value = self._store.get(key)
        if value is None:
            raise SegmentNotFound(segment=name, url=self.url)
        return value
