"""Loads a teacher: any text encoder or language model, or the text part of a larger model."""

import inspect
import logging
from pathlib import Path

import torch
import transformers
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import is_bitsandbytes_available

from .loading import gathered_parameters, only_errors, scalars_allowed
from .teacher import REMEDY, VidLanKDTeacher, check_path, check_text_encoder, text_config, text_part

DTYPES = ("float32", "float16", "bfloat16", "int8")


def load_teacher(path: str | Path, dtype: torch.dtype | str = torch.float32) -> PreTrainedModel:
    """Loads a teacher. Any model of transformers that reads text can be one:

    - a [`VidLanKDTeacher`] is loaded completely;
    - of a multimodal model (CLIP, SigLIP, FLAVA, LLaVA, Qwen-VL, ...) only the part that reads text is kept, without a
      text projection;
    - of an encoder-decoder (T5, BART) the encoder is kept;
    - a text encoder (BERT) or a language model (Llama, GPT-2) is kept without its head.

    The returned model computes `last_hidden_state` and, on request, `hidden_states` from `input_ids` and
    `attention_mask`. Code in the model's folder is never run.

    Args:
        path: Hub id or folder.
        dtype: Dtype of the weights: `"float32"`, `"float16"`, `"bfloat16"`, or `"int8"` for 8-bit linear layers by
            `bitsandbytes`.

    Raises:
        ValueError: The folder does not exist, no part of the model reads text on its own, the checkpoint lacks weights
            of that part, or `dtype` cannot be used here.
    """
    check_path(path, "the teacher")
    options = _weights(dtype)
    config = _config(path)
    model_class = _model_class(config, path)
    with only_errors(), scalars_allowed(model_class, config):  # no list of the weights that are not loaded
        model, info = model_class.from_pretrained(path, output_loading_info=True, trust_remote_code=False, **options)
    teacher = text_part(model)
    check_text_encoder(teacher)
    ours = {id(tensor) for tensor in teacher.state_dict(keep_vars=True).values()}
    tensors = model.state_dict(keep_vars=True)
    missing = [key for key in info["missing_keys"] if id(tensors.get(key)) in ours and "pooler." not in key]
    if missing:
        raise ValueError(f"{path} lacks weights of its text encoder, such as {min(missing)}: save the complete model")
    if isinstance(teacher, VidLanKDTeacher):
        return teacher
    teacher.config.use_cache = False  # a language model would keep the keys and values of all layers
    _check_states(teacher, path)
    return teacher


def _weights(dtype: torch.dtype | str) -> dict:
    """Returns the arguments of `from_pretrained` that load weights in a dtype."""
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"the teacher's dtype is {name}: choose one of {', '.join(DTYPES)}")
    if name != "int8":
        return {"dtype": getattr(torch, name)}
    if not is_bitsandbytes_available():
        raise ValueError(
            "the teacher's dtype is int8, which needs the package bitsandbytes: install it (pip install -U "
            "bitsandbytes), or choose bfloat16"
        )
    # It warns in every layer of every step that inputs are rounded.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return {"dtype": torch.bfloat16, "quantization_config": BitsAndBytesConfig(load_in_8bit=True)}


def _config(path: str | Path) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except ValueError as error:  # an architecture that transformers does not know
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path} cannot be a teacher ({reason}). Code in a model's folder is never run: {REMEDY}"
        ) from error


def _model_class(config: PreTrainedConfig, path: str | Path) -> type:
    """Returns the class that saved a checkpoint, so that all its weights are found, or else `AutoModel`."""
    saved_by = getattr(transformers, (config.architectures or [""])[0], None)
    if inspect.isclass(saved_by) and issubclass(saved_by, PreTrainedModel):
        return saved_by
    if type(config) in MODEL_MAPPING:
        return AutoModel
    raise ValueError(f"{path} is a {config.model_type} model, whose class is not in transformers: {REMEDY}")


def _check_states(teacher: PreTrainedModel, path: str | Path) -> None:
    """Raises a `ValueError` if a teacher does not compute one state of its width for each token."""
    ids = torch.arange(1, 9, device=teacher.device)[None]
    kind, width = type(teacher).__name__, text_config(teacher.config).hidden_size
    if not hasattr(text_config(teacher.config), "vocab_size"):
        raise ValueError(
            f"{path} cannot be a teacher: its text part, a {kind}, cannot read token ids of a vocabulary: {REMEDY}"
        )
    try:
        with gathered_parameters(teacher), torch.no_grad():
            states = teacher(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} cannot be a teacher: its text part, a {kind}, cannot read token ids alone ({reason}): {REMEDY}"
        ) from error
    if states.shape != (1, 8, width):
        raise ValueError(
            f"{path} cannot be a teacher: its text part, a {kind}, gives states of shape {tuple(states.shape)} for 8 "
            f"tokens instead of {(1, 8, width)}: {REMEDY}"
        )
