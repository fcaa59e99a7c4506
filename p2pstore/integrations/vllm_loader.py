"""vLLM's ``--load-format mooncake``: the weights of an object, from peers, without a file.

::

    vllm serve MODEL --load-format mooncake --model-loader-extra-config '{"object": "models/llama-3"}'

It is vLLM's default loader with another source: which experts a rank needs, and which weights a model lacks, are found
out as ever. What MODEL is (its configuration, its tokenizer) vLLM reads from MODEL itself.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.model_loader.ep_weight_filter import should_skip_weight

from p2pstore.errors import MooncakeError
from p2pstore.integrations.load_format import LoadOptions, ObjectWeights, lacking, object_name

SHOWN = 3
"""Weights that a sentence names."""


class _Lacking(Exception):
    """Weights of the model that the object has not."""


class MooncakeModelLoader(DefaultModelLoader):  # type: ignore[misc] # vLLM has no types here
    """See the module. Whatever fails is a ``RuntimeError`` of one sentence, with what to do next."""

    def __init__(self, load_config: Any) -> None:
        try:
            self._options = LoadOptions.of(load_config.model_loader_extra_config)
        except MooncakeError as error:
            raise ValueError(_told(error)) from None
        theirs = copy.copy(load_config)  # it has other keys
        tracked = self._options.enable_weights_track
        theirs.model_loader_extra_config = {} if tracked is None else {"enable_weights_track": tracked}
        super().__init__(theirs)
        self.load_config = load_config
        self._draft = ""
        self._weights: ObjectWeights | None = None

    def load_model(self, vllm_config: Any, model_config: Any, *rest: Any, **more: Any) -> Any:
        """As vLLM's. The object that was named is the engine's model; a draft model is one of its own."""
        speculative = vllm_config.speculative_config
        main = getattr(speculative, "target_model_config", None) or vllm_config.model_config
        self._draft = model_config.model if model_config.model != main.model else ""
        return super().load_model(vllm_config, model_config, *rest, **more)

    def download_model(self, model_config: Any) -> None:
        """Nothing: tensors go from peers to the model."""

    def load_weights(self, model: Any, model_config: Any) -> None:
        """See ``BaseModelLoader.load_weights``."""
        made = self._source(model_config)
        with contextlib.ExitStack() as until_loaded:
            try:
                until_loaded.enter_context(made)
            except MooncakeError as error:
                raise _not_loaded(model_config, error) from error
            self._weights = made
            try:
                super().load_weights(model, model_config)
            except MooncakeError as error:
                raise _not_loaded(model_config, error) from error
            except Exception as error:
                raise _does_not_fit(model_config, made, error) from error
            finally:
                self._weights = None

    def get_all_weights(self, model_config: Any, model: Any) -> Iterator[tuple[str, Any]]:
        """Names and tensors, as they come; also for vLLM's ``reload_weights``, which asks for nothing else."""
        self.counter_before_loading_weights = time.perf_counter()
        wanted = self._wanted(model)
        return self._alone(model_config, wanted) if self._weights is None else self._weights.tensors(wanted)

    def _alone(self, model_config: Any, wanted: Callable[[str], bool] | None) -> Iterator[tuple[str, Any]]:
        try:
            with self._source(model_config) as weights:
                yield from weights.tensors(wanted)
        except MooncakeError as error:
            raise _not_loaded(model_config, error) from error

    def _source(self, model_config: Any) -> ObjectWeights:
        options = replace(self._options, object="") if self._draft else self._options
        tied = bool(getattr(model_config.hf_config, "tie_word_embeddings", False))
        return ObjectWeights(options, object_name(options, model_config.model), tied=tied)

    def track_weights_loading(self, model: Any, loaded_weights: set[str] | None, **more: Any) -> None:
        """As vLLM's, which asks for no weights of layers that have something to do afterwards, as linear ones do.

        Such a layer would go on with what was in its memory before.
        """
        if loaded_weights is not None and self._weights is not None and not more.get("quantized"):
            others = {
                f"{path}.{name}" if path else name
                for path, module in model.named_modules()
                if not _plain(getattr(module, "quant_method", None))
                for name, _ in module.named_parameters()
            }
            parameters = [name for name, _ in model.named_parameters() if name not in others]
            packed = getattr(model, "packed_modules_mapping", {})
            found = lacking(parameters, loaded_weights, self._weights.came, packed)
            if found:
                more_of_them = f" and {len(found) - SHOWN} more weights" if len(found) > SHOWN else ""
                raise _Lacking(", ".join(found[:SHOWN]) + more_of_them)
        super().track_weights_loading(model, loaded_weights, **more)

    def _wanted(self, model: Any) -> Callable[[str], bool] | None:
        """What this process needs, as far as vLLM says it before a tensor is there: all but the experts of others."""
        experts, unused = self.local_expert_ids, getattr(model, "is_unused_checkpoint_weight", None)
        if experts is None and unused is None:
            return None
        return lambda name: not (should_skip_weight(name, experts) or (unused is not None and unused(name)))


def _plain(quant_method: Any) -> bool:
    """Whether a layer keeps its weights as they come."""
    return quant_method is None or type(quant_method).__name__.startswith("Unquantized")


def _not_loaded(model_config: Any, error: MooncakeError) -> RuntimeError:
    return RuntimeError(f"the weights of {model_config.model} cannot be loaded: {_told(error)}")


def _does_not_fit(model_config: Any, made: ObjectWeights, error: Exception) -> RuntimeError:
    if isinstance(error, _Lacking):
        detail = f"object {made.name!r} has nothing for {error} of the model {model_config.model}"
        return RuntimeError(f"{detail}; see with 'mooncake info {made.name}' whether all files are there")
    what = f"tensor {made.last!r} of object {made.name!r} does" if made.last else f"the tensors of {made.name!r} do"
    detail = f"{what} not fit the model {model_config.model}: {type(error).__name__}: {error}"
    return RuntimeError(f"{detail}; see with 'mooncake info {made.name}' whether it is that model")


def _told(error: MooncakeError) -> str:
    return f"{error}; {error.hint}" if error.hint else str(error)
