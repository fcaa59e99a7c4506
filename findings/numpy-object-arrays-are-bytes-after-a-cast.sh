#!/bin/sh
# A NumPy array of Python objects passes for plain memory: memoryview casts it to bytes, and what is sent are pointers.
#
# Version: NumPy 2.2.6 with CPython's memoryview (tried with 3.10.13, 3.11.7, 3.12.1 and 3.13.0).
# Expected: a refusal, as for view[0] and view.tolist(), which say "memoryview: format O not supported": a cast is
#   documented for formats of one native character, and "O" is none of struct's.
# Behaviour: memoryview(array).cast("B") succeeds for dtype=object. Its bytes are the addresses of the objects in this
#   process. A program that publishes "any contiguous buffer" by that cast publishes pointers, which mean nothing elsewhere.
#   The format tells: it is "O" for an array of objects; in a structured dtype "O" stands among the fields' formats.
# Output seen:
#   format O, 3 items of 8 bytes; as bytes the addresses of the objects: True
# Needs: python3 with venv and numpy's wheels. Fails if the behaviour is another.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check numpy==2.2.6
"$place/venv/bin/python" - <<'P'
import struct
import sys

import numpy as np

assert np.__version__ == "2.2.6"
objects = ["a", ("b",), {"c": 1}]
array = np.empty(3, dtype=object)
array[:] = objects
view = memoryview(array)
try:
    data = bytes(view.cast("B"))
except (TypeError, ValueError, NotImplementedError) as error:
    sys.exit(f"it behaves otherwise now: {error}")
pointers = list(struct.unpack(f"{len(data) // struct.calcsize('P')}P", data)) == [id(each) for each in objects]
print(f"format {view.format}, {len(view)} items of {view.itemsize} bytes; as bytes the addresses of the objects: {pointers}")
sys.exit(0 if pointers and view.format == "O" else "it behaves otherwise now")
P
