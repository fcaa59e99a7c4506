"""Names of upstream's module and class that the compatible ones lack, each with the reason."""

from __future__ import annotations

_DUMMY = (
    "there is no second process that holds the memory: call setup with global_segment_size=0; processes of one host "
    "and user hand one another their memory anyway"
)
_ENGRAM = "Engram is a product beside the store, and its tables are not built"
_ALLOCATOR = "it is the address of a function in C; give memory of your own and register_buffer"

LEFT_OUT = {
    "alloc_from_mem_pool": _DUMMY,
    "init_all": "it joins a pool at addresses that are written into it, by way of an etcd; call setup",
    "setup_dummy": _DUMMY,
}
"""Of ``MooncakeDistributedStore``."""

LEFT_OUT_OF_THE_MODULE = {
    "BufferLeaseView": "BufferLease.buffer is a memoryview, which needs no class",
    "EngramStore": _ENGRAM,
    "EngramStoreConfig": _ENGRAM,
    "MooncakeDistributedNoFRegister": "NVMe over Fabrics is not built",
    "RegisteredBufferLeaseView": "BufferLease.buffer is a memoryview, which needs no class",
    "bind_to_numa_node": "numactl binds a program, and os.sched_setaffinity a thread",
    "get_alloc_func_addr": _ALLOCATOR,
    "get_free_func_addr": _ALLOCATOR,
}
"""Of ``mooncake.store``."""
