"""Contexts for loading models without warnings, and for using complete weights under ZeRO-3."""

from contextlib import contextmanager, nullcontext
from importlib import import_module

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.integrations import deepspeed as settings
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.utils import logging


@contextmanager
def only_errors():
    """Sets transformers' log level to errors."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def gathered_parameters(model: PreTrainedModel):
    """Returns a context in which the weights of a model loaded under ZeRO-3 are complete on each process."""
    if not is_deepspeed_zero3_enabled():
        return nullcontext()
    # With an import statement, transformers would require DeepSpeed to load a teacher as remote code.
    deepspeed = import_module("deepspeed")
    return deepspeed.zero.GatheredParameters(list(model.parameters()))


@contextmanager
def scalars_allowed(model_class: type[PreTrainedModel], config: PreTrainedConfig):
    """Loads a model under ZeRO-3 without sharding it if it has scalars, such as CLIP's temperature.

    DeepSpeed cannot shard scalars. They are not in the part that reads text, which is sharded afterwards.
    """
    held = settings._hf_deepspeed_config_weak_ref and settings._hf_deepspeed_config_weak_ref()
    if is_deepspeed_zero3_enabled():
        with torch.device("meta"):
            has_scalars = any(parameter.dim() == 0 for parameter in model_class(config).parameters())
        if has_scalars:
            settings.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if held:
            settings.set_hf_deepspeed_config(held)
