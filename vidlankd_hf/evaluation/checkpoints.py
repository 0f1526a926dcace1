"""Checkpoints that are evaluated: which they are, and that they hold an encoder."""

import hashlib
from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForMaskedLM

from ..reliability.run_dir import file_fingerprint


def fingerprint(model: str | Path) -> str | None:
    """Of the weights in a model's folder, so that results are not taken for another model's; `None` of a Hub id."""
    files = sorted(Path(model).glob("*.safetensors"))
    return hashlib.sha256("".join(map(file_fingerprint, files)).encode()).hexdigest()[:16] if files else None


def check_encoder(model: str, network: torch.nn.Module, info: dict) -> None:
    """Raises a `ValueError` if the checkpoint lacked weights of the encoder itself, which would then be random."""
    prefix = f"{network.base_model_prefix}."
    missing = sorted(k for k in info["missing_keys"] if k.startswith(prefix) and ".pooler." not in k)
    if missing:
        raise ValueError(
            f"{model} lacks {len(missing)} weights of its encoder, such as {missing[0]}: it is no checkpoint of a "
            f"{type(network).__name__}'s encoder"
        )


def load_for_scoring(model: str):
    """Encoder of a checkpoint, and the model with its language-model head, `None` where that was not saved."""
    masked_lm, info = AutoModelForMaskedLM.from_pretrained(model, output_loading_info=True, dtype=torch.float32)
    check_encoder(model, masked_lm, info)
    if info["missing_keys"]:
        return AutoModel.from_pretrained(model, dtype=torch.float32), None
    return masked_lm, masked_lm
