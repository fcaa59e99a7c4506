"""What this machine has to move bytes with: network cards, RDMA devices, GPUs, and how near they are to one another."""

from __future__ import annotations

from engine.topology.gpus import nearest_nics, way
from engine.topology.matrix import Matrix, matrix_json, parse_matrix, priority_matrix, read_matrix
from engine.topology.model import Address, Gpu, Nic, NumaNode, RdmaDevice, RdmaPort, Route, Topology
from engine.topology.sources import SourceChoice, source_addresses
from engine.topology.sysfs import discover

__all__ = [
    "Address",
    "Gpu",
    "Matrix",
    "Nic",
    "NumaNode",
    "RdmaDevice",
    "RdmaPort",
    "Route",
    "SourceChoice",
    "Topology",
    "discover",
    "matrix_json",
    "nearest_nics",
    "parse_matrix",
    "priority_matrix",
    "read_matrix",
    "source_addresses",
    "way",
]
