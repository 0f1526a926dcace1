"""Attention of text encoders: masks, implementations, whether a model is causal, and its longest sequence."""

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from .loading import gathered_parameters

ATTENTIONS = ("sdpa", "eager", "flash_attention_2")
CPU_ATTENTION = "sdpa_cpu"  # registered in cpu_kernels.py; takes the same masks as SDPA


def key_mask(attention_mask: Tensor | None, config: PreTrainedConfig) -> Tensor | dict[str, Tensor] | None:
    """Expands a padding mask to the shape that SDPA takes, without synchronizing with the device.

    Given a `[B, L]` mask, transformers checks whether anything is padded, which makes the host wait for the device in
    every forward pass. An expanded mask is used as it is.

    Args:
        attention_mask: `[B, L]`, 1 for real tokens, or `None` if nothing is padded.
        config: Configuration of the encoder that receives the mask.

    Returns:
        A bool mask `[B, 1, 1, L]`. For ModernBERT a dict with one mask for global and one for local attention. For
        other architectures and attention implementations, and for `None`, the argument itself.
    """
    expandable = config.model_type in ("bert", "roberta", "modernbert")
    if attention_mask is None or not expandable or config._attn_implementation not in ("sdpa", CPU_ATTENTION):
        return attention_mask
    everywhere = attention_mask.bool()[:, None, None]
    if config.model_type != "modernbert":
        return everywhere
    positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    near = (positions[:, None] - positions).abs() <= config.sliding_window
    return {"full_attention": everywhere, "sliding_attention": everywhere & near}


def set_attention(name: str | None, *models: PreTrainedModel | None) -> None:
    """Sets the attention implementation of models and of those inside them.

    Args:
        name: One of `ATTENTIONS`; `None` leaves the models as they are.
        models: Teachers and students; `None` is skipped.

    Raises:
        ValueError: The name is unknown, or flash attention is requested but not installed, or there is no GPU.
    """
    if name is None:
        return
    if name not in ATTENTIONS:
        raise ValueError(f"attn_implementation is {name!r}: choose one of {', '.join(ATTENTIONS)}")
    if name == "flash_attention_2" and not is_flash_attn_2_available():  # transformers would download a kernel
        raise ValueError(
            "attn_implementation is 'flash_attention_2', but the package flash_attn is not installed, or there is no "
            "GPU: install flash-attn, or leave the option out (sdpa has PyTorch's own flash kernel)"
        )
    for model in models:
        if model is not None:
            model.set_attn_implementation(name)


def is_causal(model: PreTrainedModel) -> bool:
    """Returns whether a token's state depends only on the token itself and those before it.

    Configurations do not say this reliably (CLIP's text encoder is causal). So the model reads eight tokens, and the
    gradient of the first state with respect to the embedding of the last token is computed; in a causal model it is
    exactly zero.

    Args:
        model: A model that returns `last_hidden_state`, such as one that [`load_teacher`] returns.
    """
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)
    ids = torch.tensor([[index for index in range(1, 10) if index != pad][:8]], device=model.device)
    weight = _token_embeddings(model)
    embedded: list[Tensor] = []
    lasts: list[Tensor] = []

    def keep(module, args, output):
        states, *others = output if isinstance(output, tuple) else (output,)
        embedded.append(states.detach().requires_grad_())
        lasts.append(args[0] == ids[0, -1])  # some models transpose or pad the ids
        states = embedded[-1].clone()  # some models add positions in place
        return (states, *others) if others else states

    # The weight may be shared, so several modules may look tokens up with it.
    readers = [part for part in model.modules() if getattr(part, "weight", None) is weight]
    handles = [part.register_forward_hook(keep) for part in readers]
    attention, was_training = model.config._attn_implementation, model.training
    if attention == "flash_attention_2":  # runs only on GPUs
        model.set_attn_implementation("sdpa")
    model.eval()
    try:
        with gathered_parameters(model), torch.enable_grad():
            first = model(input_ids=ids).last_hidden_state[0, 0, 0]
            gradients = torch.autograd.grad(first.float(), embedded, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
        if attention == "flash_attention_2":
            model.set_attn_implementation(attention)
    return not any(gradient[last].any() for gradient, last in zip(gradients, lasts) if gradient is not None)


def _token_embeddings(model: PreTrainedModel) -> Tensor:
    """Returns the token embeddings `[V, H]` of a model."""
    try:
        return model.get_input_embeddings().weight
    except NotImplementedError:  # the text encoders of GroupViT and OWL-ViT do not say which they are
        size = model.config.get_text_config().vocab_size
        tables = (part for part in model.modules() if isinstance(part, torch.nn.Embedding))
        return next(table.weight for table in tables if table.num_embeddings == size)


def longest_sequence(model: PreTrainedModel) -> int | None:
    """Returns the maximum number of tokens that `model` takes, or `None` if there is no limit.

    Models like RoBERTa number their positions from the padding token's id + 1, so they take fewer tokens than they
    have position embeddings. The limit of a teacher is that of its text encoder.
    """
    model = getattr(model, "text_model", model)
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and limit < 0:  # XLNet's way to say that there is none
        return None
    positions = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(positions, "padding_idx", None)
    return limit if limit is None or padding is None else limit - padding - 1
