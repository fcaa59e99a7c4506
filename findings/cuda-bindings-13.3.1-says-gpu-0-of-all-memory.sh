#!/bin/sh
# cuda-bindings answers 0 when it is asked on which GPU memory lies, whatever the driver says.
#
# Version: cuda-bindings 13.3.1 of PyPI (also github.com/NVIDIA/cuda-python/issues/2928).
# Expected: cuPointerGetAttribute(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, pointer) gives the number that the driver writes.
# Behaviour: it gives 0. The number is written to one field of a helper and read from another. With a single GPU nobody sees
#   it; with several, memory of the others is taken for the first one's.
# Output seen:
#   the driver wrote 5, cuda-bindings says 0
# Needs: python3 with venv, gcc, x86-64 Linux, no GPU: a library of four calls stands in for NVIDIA's driver. Fails if the
#   behaviour is another.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check --no-deps cuda-bindings==13.3.1 cuda-pathfinder==1.9.1
cat >"$place/driver.c" <<'C'
#include <string.h>
int cuInit(unsigned flags) { (void)flags; return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuPointerGetAttribute(void *data, int attribute, unsigned long long pointer) {
    (void)pointer;
    if (attribute != 9) return 1; /* CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: "an integer representing a device ordinal" */
    *(int *)data = 5;
    return 0;
}
int cuGetProcAddress_v2(const char *name, void **found, int version, unsigned long long flags, int *status) {
    (void)version; (void)flags;
    *found = !strcmp(name, "cuInit") ? (void *)cuInit
           : !strcmp(name, "cuDriverGetVersion") ? (void *)cuDriverGetVersion
           : !strcmp(name, "cuPointerGetAttribute") ? (void *)cuPointerGetAttribute : (void *)0;
    if (status) *status = *found ? 0 : 1;
    return *found ? 0 : 500;
}
C
gcc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$place/libcuda.so.1" "$place/driver.c"
LD_LIBRARY_PATH="$place" "$place/venv/bin/python" - <<'P'
import ctypes
from importlib.metadata import version

from cuda.bindings import driver

assert version("cuda-bindings") == "13.3.1"
assert driver.cuInit(0) == (driver.CUresult.CUDA_SUCCESS,)
pointer = 0x7F0000000000
code, says = driver.cuPointerGetAttribute(driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, pointer)
assert code == driver.CUresult.CUDA_SUCCESS
wrote = ctypes.c_int(-1)
assert ctypes.CDLL("libcuda.so.1").cuPointerGetAttribute(ctypes.byref(wrote), 9, ctypes.c_uint64(pointer)) == 0
print(f"the driver wrote {wrote.value}, cuda-bindings says {says}")
assert (wrote.value, says) == (5, 0), "the behaviour is another by now"
P
