"""The compatible class's tensors in files of safetensors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.files.writing import replace_file
from engine.rpc.codes import Code
from p2pstore.errors import UsageError
from p2pstore.kv.client.compat_tensors import CompatTensors
from p2pstore.kv.client.tensors import library


class CompatFiles(CompatTensors):
    """Tensors to files and back, under upstream's names."""

    def save_tensor_to_safetensor(self, key: str, file_name: str | None = None) -> int:
        """Write a tensor to a file of safetensors, which is called like the key unless it is named.

        A file that is there stays as it was until all of the new one is written.
        """
        tensor = self.get_tensor(key)
        if tensor is None:
            return int(Code.NOT_FOUND)
        with self._called() as failed, _told(f"{file_name or key} cannot be written"):
            path = Path(os.path.realpath(file_name or key))  # a link is followed
            # Not by save_file: before 0.8 it cuts a file that is there, and leaves half of one where the disk is full.
            replace_file(path, library("safetensors.torch").save({key: tensor}), mode=0o666)
        return failed.code

    def load_tensor_from_safetensor(self, key: str | None = None, file_name: str = "") -> Any:
        """Put a tensor out of a file: the one of that name, or the first. The tensor, or None."""
        with self._called(), _told(f"{file_name} cannot be read"):
            found: dict[str, Any] = library("safetensors.torch").load_file(file_name)
            if not found:
                raise UsageError(detail=f"{file_name} has no tensors")
            tensor = found.get(key or "", next(iter(found.values())))
            return tensor if self.put_tensor(key or file_name, tensor) == 0 else None
        return None


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """An error of a file, or of the library that reads it, in words."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - safetensors has several
        raise UsageError(detail=f"{what}: {error}") from None
