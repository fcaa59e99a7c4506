"""What the loader uses of vLLM 0.32, made small: its loader without torch. ``tests/serving`` has the real one."""

from __future__ import annotations

import importlib
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

OURS = ("p2pstore.integrations.vllm_loader",)


class DefaultModelLoader:
    """As vLLM's does, it asks for no weights of modules with something to do afterwards."""

    counter_before_loading_weights = 0.0

    def __init__(self, load_config: Any) -> None:
        self.load_config = load_config
        self.local_expert_ids: set[int] | None = None
        extra = load_config.model_loader_extra_config
        if set(extra) - {"enable_weights_track"}:
            raise ValueError(f"Unexpected extra config keys: {set(extra)}")
        self.enable_weights_track = extra.get("enable_weights_track")

    def load_model(self, vllm_config: Any, model_config: Any, prefix: str = "") -> Any:
        self.load_weights(vllm_config.model, model_config)
        return vllm_config.model

    def get_all_weights(self, model_config: Any, model: Any) -> Iterator[tuple[str, Any]]:
        raise AssertionError("the weights are to come from peers, and vLLM looks for files of them")

    def load_weights(self, model: Any, model_config: Any) -> None:
        loaded = model.load_weights(self.get_all_weights(model_config, model))
        if self.enable_weights_track is not False and loaded is not None:
            self.track_weights_loading(model, loaded, quantized=model_config.quantization is not None)

    def track_weights_loading(self, model: Any, loaded_weights: set[str], quantized: bool = False) -> None:
        exempt = {
            f"{path}.{name}"
            for path, module in model.named_modules()
            if module.quant_method is not None
            for name, _ in module.named_parameters()
        }
        left = {name for name, _ in model.named_parameters()} - loaded_weights - exempt
        if left:
            raise ValueError(f"Following weights were not initialized from checkpoint: {left}")


def should_skip_weight(name: str, local: set[int] | None) -> bool:
    found = re.search(r"\.experts\.(\d+)\.", name)
    return local is not None and found is not None and int(found[1]) not in local


class UnquantizedLinearMethod:
    pass


class Fp8LinearMethod:
    pass


class Module:
    def __init__(self, parameters: dict[str, Any], quant_method: Any) -> None:
        self.parameters = parameters
        self.quant_method = quant_method

    def named_parameters(self) -> Iterable[tuple[str, Any]]:
        return self.parameters.items()


class Model:
    """Linear modules by their paths, with the shapes of their weights, and some that are not."""

    packed_modules_mapping: ClassVar[dict[str, list[str]]] = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}

    def __init__(self, shapes: dict[str, tuple[int, ...]], method: Callable[[], Any] = UnquantizedLinearMethod) -> None:
        self.parameters = {f"{path}.weight": np.zeros(shape, np.float32) for path, shape in shapes.items()}
        self._method = method

    def named_parameters(self) -> Iterable[tuple[str, Any]]:
        return self.parameters.items()

    def named_modules(self) -> Iterable[tuple[str, Any]]:
        for name, parameter in self.parameters.items():
            path = name.rpartition(".")[0]
            yield path, Module({"weight": parameter}, None if path.endswith("norm") else self._method())

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> set[str]:
        loaded = set()
        for name, tensor in weights:
            target, part = name, ...
            for packed, parts in self.packed_modules_mapping.items():
                for number, each in enumerate(parts):
                    if f"{packed}.weight" == name.replace(each, packed):
                        target, part = f"{packed}.weight", number
            if target not in self.parameters:
                raise KeyError(target)
            self.parameters[target][part] = tensor
            loaded.add(target)
        return loaded


def model_config(model: str, *, tied: bool = False, quantization: str | None = None) -> Any:
    return SimpleNamespace(model=model, quantization=quantization, hf_config=SimpleNamespace(tie_word_embeddings=tied))


def vllm_config(model: Any, config: Any, speculative: Any = None) -> Any:
    return SimpleNamespace(model=model, model_config=config, speculative_config=speculative)


@contextmanager
def installed() -> Iterator[dict[str, Any]]:
    """Within it vLLM is this; what it was told to register is yielded."""
    registered: dict[str, Any] = {}

    def register_model_loader(name: str) -> Callable[[Any], Any]:
        return lambda loader: registered.setdefault(name, loader)

    contents: dict[str, dict[str, Any]] = {
        "vllm": {},
        "vllm.model_executor": {},
        "vllm.model_executor.model_loader": {"register_model_loader": register_model_loader},
        "vllm.model_executor.model_loader.default_loader": {"DefaultModelLoader": DefaultModelLoader},
        "vllm.model_executor.model_loader.ep_weight_filter": {"should_skip_weight": should_skip_weight},
    }
    names = (*contents, *OURS)
    before = {name: sys.modules.pop(name, None) for name in names}
    for name, content in contents.items():
        module = types.ModuleType(name)
        module.__path__ = []  # type: ignore[attr-defined]
        vars(module).update(content)
        sys.modules[name] = module
    try:
        for name in OURS:
            importlib.import_module(name)
        yield registered
    finally:
        for name in names:
            sys.modules.pop(name, None)
            if (module_before := before[name]) is not None:
                sys.modules[name] = module_before
