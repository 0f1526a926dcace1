"""How long a sequence an encoder has positions for."""

from transformers import PreTrainedModel


def longest_sequence(model: PreTrainedModel) -> int | None:
    """Tokens of the longest sequence that `model` reads; `None` if nothing limits it.

    RoBERTa and its kin number their positions from behind the padding token's id.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    positions = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(positions, "padding_idx", None)
    return limit if limit is None or padding is None else limit - padding - 1
