"""What is said of each code: the next step must fit."""

from __future__ import annotations

import pytest

from engine.cuda.driver import failed, lasting


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("cuMemHostAlloc", "CUDA_ERROR_OUT_OF_MEMORY", "ulimit -l"),
        ("cuStreamCreate", "CUDA_ERROR_OUT_OF_MEMORY", "nvidia-smi"),
        ("cuMemcpyHtoDAsync", "CUDA_ERROR_INVALID_VALUE", "keep the tensor"),
        ("cuEventQuery", "CUDA_ERROR_ILLEGAL_ADDRESS", "end this process"),
        ("cuEventQuery", "CUDA_ERROR_ECC_UNCORRECTABLE", "dmesg"),
        ("cuEventQuery", "CUDA_ERROR_SYSTEM_NOT_READY", "look up"),
    ],
)
def test_what_to_do(call: str, code: str, words: str) -> None:
    error = failed(call, 3, code, "so it is")
    assert str(error) == f"GPU 3: {call} failed with {code} (so it is)"
    assert words in error.hint
    assert error.exit_code == 11
    assert lasting(error) == ("keep" in words or "process" in words or "dmesg" in words)
