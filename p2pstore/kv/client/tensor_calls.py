"""A store's calls for arrays and tensors: values with their type and shape in front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from p2pstore.kv.client.tensors import TensorHeader, as_numpy, as_torch, described

if TYPE_CHECKING:
    from typing_extensions import Buffer as Exporter


class Values(Protocol):
    """What they are made of."""

    def put_parts(self, key: str, parts: Sequence[Exporter], *, replace: bool = False, **how: Any) -> bool:
        """Put the bytes of several pieces of memory as one value."""

    def get(self, key: str) -> bytes:
        """A value."""


class TensorCalls:
    """For a class that has ``Values``."""

    def put_tensor(self: Values, key: str, tensor: Any, **how: Any) -> bool:
        """Put an array or tensor with its type and shape, in upstream's form. Contiguous ones alone; as ``put``."""
        header = TensorHeader.of(tensor)
        return self.put_parts(key, [header.pack(), tensor], **how)

    def get_array(self: Values, key: str) -> Any:
        """What ``put_tensor`` put, as a NumPy array; types that NumPy lacks are those of ``ml_dtypes``.

        Raises as ``get``, and ``UsageError`` for a value that is no tensor.
        """
        header, data = described(key, self.get(key))
        return as_numpy(header, data)

    def get_tensor(self: Values, key: str) -> Any:
        """What ``put_tensor`` put, as a tensor of PyTorch. Raises as ``get_array``."""
        header, data = described(key, self.get(key))
        return as_torch(header, data)
