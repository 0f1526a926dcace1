"""Configurations: the sizes of the paper, the video encoder, and the teacher that joins it to a text encoder."""

from transformers import AutoConfig, BertConfig, PreTrainedConfig

# Layers and widths of the paper's models (section 4.1). `tiny` is for the grounded world and for tests; a model this
# small does not overfit, so it has no dropout.
SIZES = {
    "tiny": {
        "num_hidden_layers": 2,
        "hidden_size": 128,
        "num_attention_heads": 2,
        "intermediate_size": 512,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    "small": {"num_hidden_layers": 6, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048},
    "base": {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
}
CONTRASTS = ("hinge", "hinge_batch", "infonce")
TEACHER_LOSSES = ("contrast+mlm", "contrast", "mlm")


def bert_config(size: str, tokenizer=None, **overrides) -> BertConfig:
    """A `BertConfig` of one of our `SIZES`, its vocabulary and padding taken from `tokenizer` where one is given."""
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}: choose one of {', '.join(SIZES)}, or give the path of a checkpoint")
    if tokenizer is not None:
        overrides = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **overrides}
    return BertConfig(**{**SIZES[size], **overrides})


class VidLanKDVideoConfig(PreTrainedConfig):
    """Shape of the video encoder.

    Args:
        feature_size: Width F of the frame features, all streams concatenated (4096 for ResNet-152 + ResNeXt).
        projection_size: Width between the two linear layers that take features to `hidden_size`.
        max_position_embeddings: Longest clip in steps T. The collator subsamples longer ones evenly.
    """

    model_type = "vidlankd_video"

    feature_size: int = 4096
    projection_size: int = 1024
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 384
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12


class VidLanKDTeacherConfig(PreTrainedConfig):
    """A BERT-like text encoder (`text_config`) and a video encoder (`video_config`), trained by contrast and MLM.

    Args:
        text_config: Configuration of any BERT-like masked language model.
        video_config: A [`VidLanKDVideoConfig`].
        losses: What the teacher learns by: `"contrast+mlm"`, `"contrast"`, or `"mlm"`, a teacher that reads captions
            and has no video encoder.
        contrast: `"infonce"` (every other video of the batch, softmax), `"hinge"` (the paper's: one unpaired video
            and one unpaired sentence, margin) or `"hinge_batch"` (the hinge, averaged over every other video).
        margin: Margin of the hinges (the paper's alpha).
        temperature: Temperature of `"infonce"`.
        joint_size: Width of a space of their own in which tokens and clips are compared, each through an MLP (a
            vokenizer's is 64). By default clips are compared with the token states themselves.
        vocabulary: Fingerprint of the tokenizer, written by [`TeacherTrainer`]. A student must share it.
    """

    model_type = "vidlankd_teacher"
    sub_configs = {"text_config": AutoConfig, "video_config": VidLanKDVideoConfig}

    text_config: dict | PreTrainedConfig | None = None
    video_config: dict | PreTrainedConfig | None = None
    losses: str = "contrast+mlm"
    contrast: str = "infonce"
    margin: float = 1.0
    temperature: float = 0.1
    joint_size: int | None = None
    initializer_range: float = 0.02
    vocabulary: str | None = None

    def __post_init__(self, **kwargs):
        if self.text_config is None:
            self.text_config = BertConfig()
        elif isinstance(self.text_config, dict):
            self.text_config = AutoConfig.for_model(**{"model_type": "bert", **self.text_config})
        if self.video_config is None:
            self.video_config = VidLanKDVideoConfig()
        elif isinstance(self.video_config, dict):
            self.video_config = VidLanKDVideoConfig(**self.video_config)
        if self.contrast not in CONTRASTS:
            raise ValueError(f"unknown contrast {self.contrast!r}: choose one of {', '.join(CONTRASTS)}")
        if self.losses not in TEACHER_LOSSES:
            raise ValueError(f"unknown losses {self.losses!r}: choose one of {', '.join(TEACHER_LOSSES)}")
        if self.joint_size is not None and self.joint_size < 1:
            raise ValueError(f"joint_size is {self.joint_size}: give a width of 1 or more, or leave it out")
        super().__post_init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        return self.text_config.vocab_size

    @property
    def hidden_size(self) -> int:
        return self.text_config.hidden_size
