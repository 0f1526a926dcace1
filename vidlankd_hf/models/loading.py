"""Contexts for loading models without warnings, and for using complete weights under ZeRO-3."""

from contextlib import contextmanager, nullcontext
from importlib import import_module

from transformers import PreTrainedModel
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
