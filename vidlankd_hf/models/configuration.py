"""Configurations: the sizes of the paper, the video encoder, and the teacher that joins it to a text encoder."""

from transformers import AutoConfig, BertConfig, ModernBertConfig, PreTrainedConfig, RobertaConfig

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
MODEL_TYPES = {"bert": BertConfig, "roberta": RobertaConfig, "modernbert": ModernBertConfig}
CONTRASTS = ("hinge", "hinge_batch", "infonce")
TEACHER_LOSSES = ("contrast+mlm", "contrast", "mlm")


def bert_config(size: str, tokenizer=None, **overrides) -> BertConfig:
    """A `BertConfig` of one of our `SIZES`, its vocabulary and padding taken from `tokenizer` where one is given."""
    return student_config(size, tokenizer, **overrides)


def student_config(size: str, tokenizer=None, model_type: str = "bert", **overrides) -> PreTrainedConfig:
    """The configuration of a new student of a `model_type` (`"bert"`, `"roberta"`, `"modernbert"`).

    Args:
        size: One of our `SIZES`. Layers and widths are the same for each model type. ModernBERT's feed-forward layers
            are gated, so at the same width they have 1.5 times as many weights.
        tokenizer: Gives the vocabulary's size and the ids of its special tokens: the teacher's.
        overrides: Further fields of the configuration, by the names that it has for this model type.
    """
    if model_type not in MODEL_TYPES:
        raise ValueError(f"there is no student of model type {model_type!r}: choose one of {', '.join(MODEL_TYPES)}")
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}: choose one of {', '.join(SIZES)}, or give the path of a checkpoint")
    fields = dict(SIZES[size])
    if model_type == "modernbert":  # its own dropouts are 0 by default, as it was published
        fields = {name: value for name, value in fields.items() if "dropout" not in name}
    if tokenizer is not None:
        fields |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        if model_type != "bert":  # whose configuration names no other special token
            fields |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
        if model_type == "modernbert":
            fields |= {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    fields |= overrides
    if model_type == "roberta":  # its positions are counted from the padding token's id + 1
        padding = fields.get("pad_token_id", RobertaConfig.pad_token_id)
        fields.setdefault("max_position_embeddings", BertConfig.max_position_embeddings + padding + 1)
    return MODEL_TYPES[model_type](**fields)


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
