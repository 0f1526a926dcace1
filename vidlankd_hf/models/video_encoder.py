"""The video encoder: maps the features `[B, T, F]` of clips to one unit vector `[B, J]` per clip."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from .attention import key_mask
from .configuration import VidLanKDVideoConfig

TRANSFORMER_FIELDS = """
hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act hidden_dropout_prob
attention_probs_dropout_prob max_position_embeddings initializer_range layer_norm_eps
""".split()


class VideoEncoder(nn.Module):
    """Transformer over video steps: linear F -> P -> H, Transformer, mean over real steps, MLP, L2 norm.

    Features are first standardized with the buffers `feature_mean` and `feature_std`, because backbones differ in
    scale, and the mean that all clips share would hide what distinguishes them. The buffers are saved with the
    weights; they are 0 and 1 until [`VidLanKDTeacher.set_feature_statistics`] is called.

    Args:
        config: Shape of the encoder.
        output_size: Width J of the clip vectors.

    Source: VidLanKD (arXiv 2107.02681), section 3.2. The released code takes the first step's state, not the mean.
    """

    def __init__(self, config: VidLanKDVideoConfig, output_size: int):
        super().__init__()
        self.config = config
        self.register_buffer("feature_mean", torch.zeros(config.feature_size, dtype=torch.float32))
        self.register_buffer("feature_std", torch.ones(config.feature_size, dtype=torch.float32))
        self.projection = nn.Sequential(
            nn.Linear(config.feature_size, config.projection_size),
            nn.Linear(config.projection_size, config.hidden_size),
        )
        transformer = BertConfig(vocab_size=1, **{name: getattr(config, name) for name in TRANSFORMER_FIELDS})
        self.transformer = BertModel(transformer, add_pooling_layer=False)
        # The inputs are already embeddings, and DDP refuses unused word embeddings, which would have no gradients.
        self.transformer.embeddings.word_embeddings = None
        self.head = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.ReLU(),
            nn.Dropout(config.hidden_dropout_prob),
            nn.Linear(config.hidden_size, output_size),
        )

    def _apply(self, fn, *args, **kwargs):
        """Moves and casts as usual, but keeps the statistics in float32: DeepSpeed casts all of a bf16 model."""
        exact = {name: getattr(self, name) for name in ("feature_mean", "feature_std")}
        super()._apply(fn, *args, **kwargs)
        for name, kept in exact.items():
            moved = getattr(self, name)
            if moved.dtype != kept.dtype:
                setattr(self, name, kept.to(moved.device))
        return self

    def forward(self, video_features: Tensor, video_mask: Tensor) -> Tensor:
        """Encodes clips.

        Args:
            video_features: `[B, T, F]` features, one clip per row, padded.
            video_mask: `[B, T]`, 1 for real steps.

        Returns:
            Unit vectors `[B, J]`.

        Raises:
            ValueError: F differs from `feature_size`, or T exceeds `max_position_embeddings`.
        """
        steps, width = video_features.shape[1:]
        if width != self.config.feature_size:
            raise ValueError(
                f"video features have width {width}, but this model expects {self.config.feature_size}: "
                "read the streams that it was trained on (--streams), extract features with the same backbones, or "
                f"create a teacher with feature_size={width}"
            )
        if steps > self.config.max_position_embeddings:
            raise ValueError(
                f"a clip has {steps} steps, but this model takes at most {self.config.max_position_embeddings}: "
                "subsample it (VideoTextCollator does this with max_video_length)"
            )
        features = (video_features.float() - self.feature_mean.float()) / self.feature_std.float()
        embeddings = self.projection(features.to(self.projection[0].weight.dtype))
        mask = key_mask(video_mask, self.transformer.config)
        states = self.transformer(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        weights = video_mask.to(states.dtype)[..., None]
        pooled = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
        return F.normalize(self.head(pooled).float(), dim=-1)
