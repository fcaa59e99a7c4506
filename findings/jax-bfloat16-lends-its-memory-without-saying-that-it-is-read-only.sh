#!/bin/sh
# JAX's arrays are immutable, and the only way to their bfloat16 memory without a copy does not say so.
#
# Version: jax and jaxlib 0.10.2 on the CPU, ml_dtypes 0.6.0, NumPy 2.2.6.
# Expected: as memoryview(float32 array) is read-only, so is what DLPack lends; a consumer that asks for max_version=(1, 0)
#   is given a versioned tensor, whose flags have a bit for it (DLPACK_FLAG_BITMASK_READ_ONLY).
# Behaviour: the buffer protocol refuses bfloat16 with BufferError, so that a program that takes "any contiguous memory"
#   goes on to DLPack. There max_version is accepted and an unversioned tensor ("dltensor") comes back, which has no flags:
#   nothing tells that nobody may write there. A receive into it changes an array that the whole program, and what it has
#   compiled, takes for constant. (numpy.from_dlpack makes what is unversioned read-only, by a rule of its own.)
# Output seen:
#   float32: memoryview read-only; DLPack 1.0 asked for, capsule dltensor
#   bfloat16: no memoryview; DLPack 1.0 asked for, capsule dltensor
# Needs: Python 3.11 or newer with venv, 300 MB of disk. Fails if the behaviour is another.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 ml_dtypes==0.6.0 numpy==2.2.6
JAX_PLATFORMS=cpu "$place/venv/bin/python" - <<'P'
import ctypes
import sys

import jax.numpy as jnp

name_of = ctypes.pythonapi.PyCapsule_GetName
name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
seen = []
for dtype in (jnp.float32, jnp.bfloat16):
    array = jnp.arange(8, dtype=dtype)
    try:
        memory = "memoryview read-only" if memoryview(array).readonly else "memoryview writable"
    except BufferError:
        memory = "no memoryview"
    capsule = name_of(array.__dlpack__(max_version=(1, 0))).decode()
    seen.append(f"{dtype.__name__}: {memory}; DLPack 1.0 asked for, capsule {capsule}")
    print(seen[-1])
expected = [
    "float32: memoryview read-only; DLPack 1.0 asked for, capsule dltensor",
    "bfloat16: no memoryview; DLPack 1.0 asked for, capsule dltensor",
]
sys.exit(0 if seen == expected else "it behaves otherwise now")
P
