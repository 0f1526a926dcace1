"""Checkpoints to evaluate: their identity, and whether they contain an encoder."""

import hashlib
from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForMaskedLM

from ..reliability.same_run import weights_fingerprint
from ..utils.io import sha256_of
from ..utils.messages import number_of


def fingerprint(model: str | Path) -> str | None:
    """Returns a hash that tells models apart: of the weights in a folder, or the commit of a Hub id.

    Returns `None` if the weights are not known, for example without a network.
    """
    if not Path(model).is_dir():
        return weights_fingerprint(model)
    files = sorted(Path(model).glob("*.safetensors"))
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()[:16] if files else None


def check_encoder(model: str, network: torch.nn.Module, info: dict) -> None:
    """Raises a `ValueError` if the checkpoint lacks weights of the encoder, which would be random.

    Args:
        model: Name of the checkpoint, for the message.
        network: The loaded model.
        info: Loading information from `from_pretrained(output_loading_info=True)`.
    """
    prefix = f"{network.base_model_prefix}."
    missing = sorted(k for k in info["missing_keys"] if k.startswith(prefix) and ".pooler." not in k)
    if missing:
        raise ValueError(
            f"{model} lacks {number_of(len(missing), 'weight')} of its encoder, such as {missing[0]}: give a "
            "checkpoint with all "
            f"weights of the encoder of {type(network).__name__}"
        )


def load_for_scoring(model: str):
    """Loads a checkpoint for zero-shot scoring.

    Args:
        model: Folder or Hub id.

    Returns:
        `(encoder, masked_lm)`. `masked_lm` is `None` if the checkpoint has no language-model head.

    Raises:
        ValueError: The checkpoint lacks weights of the encoder.
    """
    masked_lm, info = AutoModelForMaskedLM.from_pretrained(
        model, output_loading_info=True, dtype=torch.float32, trust_remote_code=False
    )
    check_encoder(model, masked_lm, info)
    if info["missing_keys"]:
        return AutoModel.from_pretrained(model, dtype=torch.float32, trust_remote_code=False), None
    return masked_lm, masked_lm
