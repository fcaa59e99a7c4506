"""vLLM's server on a CPU: what its Mooncake connectors ask of an accelerator is answered here.

Its processes import this module anew, so that it holds for all of them.
"""

from __future__ import annotations

import runpy

import torch

torch.accelerator.current_device_index = lambda: 0
torch.accelerator.set_device_index = lambda index: None

if __name__ == "__main__":
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
