"""The types of numbers that safetensors files hold, and what NumPy and PyTorch call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class DType(NamedTuple):
    """A type of safetensors: bits of one number, and its names elsewhere; empty where nobody there has it.

    ``numpy`` is an attribute of NumPy, or of ``ml_dtypes`` where ``extended``; ``torch`` is one of PyTorch.
    """

    bits: int
    numpy: str
    torch: str
    extended: bool = False


DTYPES: Mapping[str, DType] = {
    "BOOL": DType(8, "bool_", "bool"),
    "F4": DType(4, "", "float4_e2m1fn_x2"),
    "F6_E2M3": DType(6, "", ""),
    "F6_E3M2": DType(6, "", ""),
    "U8": DType(8, "uint8", "uint8"),
    "I8": DType(8, "int8", "int8"),
    "F8_E5M2": DType(8, "float8_e5m2", "float8_e5m2", extended=True),
    "F8_E4M3": DType(8, "float8_e4m3fn", "float8_e4m3fn", extended=True),
    "F8_E8M0": DType(8, "float8_e8m0fnu", "float8_e8m0fnu", extended=True),
    "F8_E4M3FNUZ": DType(8, "float8_e4m3fnuz", "float8_e4m3fnuz", extended=True),
    "F8_E5M2FNUZ": DType(8, "float8_e5m2fnuz", "float8_e5m2fnuz", extended=True),
    "I16": DType(16, "int16", "int16"),
    "U16": DType(16, "uint16", "uint16"),
    "F16": DType(16, "float16", "float16"),
    "BF16": DType(16, "bfloat16", "bfloat16", extended=True),
    "I32": DType(32, "int32", "int32"),
    "U32": DType(32, "uint32", "uint32"),
    "F32": DType(32, "float32", "float32"),
    "C64": DType(64, "complex64", "complex64"),
    "F64": DType(64, "float64", "float64"),
    "I64": DType(64, "int64", "int64"),
    "U64": DType(64, "uint64", "uint64"),
}
"""Those of safetensors 0.8. In files all are little-endian; F4 has two numbers in a byte, F6 four in three."""
