"""What upstream's own Python modules (``mooncake.structured_object_store``) call of ``mooncake.store`` itself.

Their names begin with an underscore there; a program has no need of them.
"""

from __future__ import annotations

from typing import Any

from p2pstore.errors import UsageError
from p2pstore.kv.client.tensors import HEADER_BYTES, TensorHeader, as_torch, described


def serialize_tensor(tensor: Any) -> tuple[bytes, int, int, Any]:
    """A tensor's header, the address and the bytes of its elements, and who keeps them alive.

    Raises ``ValueError``, as upstream's, for what cannot be put.
    """
    owner = tensor if getattr(tensor, "is_cuda", False) or not hasattr(tensor, "contiguous") else tensor.contiguous()
    try:
        header = TensorHeader.of(owner)
    except UsageError as error:
        raise ValueError(f"unsupported tensor for Mooncake tensor serialization: {error}") from None
    at = owner.data_ptr() if hasattr(owner, "data_ptr") else owner.ctypes.data
    return header.pack(), int(at), header.size, owner


def deserialize_tensor(payload: bytes) -> Any:
    """The tensor of PyTorch that a header and its elements are. Raises ``ValueError``, as upstream's."""
    try:
        return as_torch(*described("the payload", payload))
    except UsageError as error:
        raise ValueError(f"invalid serialized Mooncake tensor payload: {error}") from None


def tensor_metadata_size() -> int:
    """Bytes of the header."""
    return HEADER_BYTES


CODEC = {
    "_serialize_tensor": serialize_tensor,
    "_deserialize_tensor": deserialize_tensor,
    "_tensor_metadata_size": tensor_metadata_size,
}
"""By upstream's names."""
