"""Configurations of student, video encoder and teacher, and the model sizes of the paper."""

from typing import Any

from transformers import AutoConfig, BertConfig, ModernBertConfig, PreTrainedConfig, RobertaConfig

# `small` and `base` are the paper's models (section 4.1). `tiny` is for the grounded world and for tests. It has no
# dropout because a model this small does not overfit. BERT's initializer_range of 0.02 is for width 768: scaled by
# sqrt(768 / 128), a model of width 128 learns language in half the steps.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "num_hidden_layers": 2,
        "hidden_size": 128,
        "num_attention_heads": 2,
        "intermediate_size": 512,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.05,
    },
    "small": {"num_hidden_layers": 6, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048},
    "base": {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
}
MODEL_TYPES = {"bert": BertConfig, "roberta": RobertaConfig, "modernbert": ModernBertConfig}
CONTRASTS = ("hinge", "hinge_batch", "infonce", "mil_nce")
MIL_CANDIDATES = 5  # as in the paper of MIL-NCE
TEACHER_LOSSES = ("contrast+mlm", "contrast", "mlm")


def bert_config(size: str, tokenizer=None, **overrides) -> BertConfig:
    """Returns a `BertConfig` of the given size; the same as [`student_config`] with `model_type="bert"`."""
    return student_config(size, tokenizer, **overrides)


def student_config(size: str, tokenizer=None, model_type: str = "bert", **overrides) -> PreTrainedConfig:
    """Returns the configuration of a new student.

    Args:
        size: `"tiny"`, `"small"` or `"base"`. Every model type has the same layers and widths. ModernBERT's
            feed-forward layers are gated and have 1.5 times as many weights at the same width.
        tokenizer: The student's tokenizer. It sets the vocabulary size and the special token ids. Without one, the
            defaults of the model type are used.
        model_type: `"bert"`, `"roberta"` or `"modernbert"`.
        overrides: Further fields of the configuration class of this model type.

    Raises:
        ValueError: Unknown `size` or `model_type`.
    """
    if model_type not in MODEL_TYPES:
        raise ValueError(f"there is no student of model type {model_type!r}: choose one of {', '.join(MODEL_TYPES)}")
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}: choose one of {', '.join(SIZES)}, or give the path of a checkpoint")
    fields = dict(SIZES[size])
    if model_type == "modernbert":  # published without dropout, and its dropout fields have other names
        fields = {name: value for name, value in fields.items() if "dropout" not in name}
    if tokenizer is not None:
        fields |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        if model_type != "bert":  # BertConfig has no further special token ids
            fields |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
        if model_type == "modernbert":
            fields |= {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    fields |= overrides
    if model_type == "roberta":  # numbers its positions from the padding token's id + 1
        padding = fields.get("pad_token_id", RobertaConfig.pad_token_id)
        fields.setdefault("max_position_embeddings", BertConfig.max_position_embeddings + padding + 1)
    return MODEL_TYPES[model_type](**fields)


class VidLanKDVideoConfig(PreTrainedConfig):
    """Configuration of the video encoder. Fields not listed are those of `BertConfig`.

    Args:
        feature_size: Width F of the video features, all streams concatenated (4096 for ResNet-152 + ResNeXt).
        projection_size: Width P between the two linear layers that project features to `hidden_size`.
        max_position_embeddings: Maximum number of video steps T. The collator evenly subsamples longer clips.
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
    """Configuration of a teacher: a BERT-like text encoder, a video encoder and the losses that train them.

    Args:
        text_config: Configuration of any BERT-like masked language model.
        video_config: A [`VidLanKDVideoConfig`].
        losses: Training losses: `"contrast+mlm"`, `"contrast"` or `"mlm"`. With `"mlm"` the teacher is trained only on
            captions and has no video encoder.
        contrast: Video-text loss: `"infonce"` (softmax over all other videos in the batch), `"hinge"` (the paper's
            margin loss with one unpaired video and one unpaired sentence) or `"hinge_batch"` (the margin loss averaged
            over all other videos in the batch), see [`VideoTextContrast`]; or `"mil_nce"` (softmax in which several
            texts around a clip are positives together, for misaligned narration), see [`MILNCEContrast`].
        margin: Margin of the hinge losses (alpha in the paper).
        temperature: Temperature of `"infonce"` and `"mil_nce"`.
        mil_candidates: Number of texts in a bag of `"mil_nce"`, an odd number: the clip's own and as many before as
            after it. Default: 5. Only for `"mil_nce"`.
        joint_size: Width of a joint embedding space: tokens and clips are each projected into it by an MLP (a
            vokenizer uses 64). By default clips are projected into the space of the token states.
        vocabulary: Fingerprint of the tokenizer, set by [`TeacherTrainer`]. A student must use the same tokenizer.

    Raises:
        ValueError: Unknown `contrast` or `losses`, a `joint_size` below 1, or `mil_candidates` that do not fit.
    """

    model_type = "vidlankd_teacher"
    sub_configs = {"text_config": AutoConfig, "video_config": VidLanKDVideoConfig}

    text_config: dict | PreTrainedConfig | None = None
    video_config: dict | PreTrainedConfig | None = None
    losses: str = "contrast+mlm"
    contrast: str = "infonce"
    margin: float = 1.0
    temperature: float = 0.1
    mil_candidates: int | None = None
    joint_size: int | None = None
    initializer_range: float = 0.02
    vocabulary: str | None = None

    def __post_init__(self, **kwargs):
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = AutoConfig.for_model(**{"model_type": "bert", **(self.text_config or {})})
        if not isinstance(self.video_config, PreTrainedConfig):
            self.video_config = VidLanKDVideoConfig(**(self.video_config or {}))
        if self.contrast not in CONTRASTS:
            raise ValueError(f"unknown contrast {self.contrast!r}: choose one of {', '.join(CONTRASTS)}")
        if self.losses not in TEACHER_LOSSES:
            raise ValueError(f"unknown losses {self.losses!r}: choose one of {', '.join(TEACHER_LOSSES)}")
        if self.joint_size is not None and self.joint_size < 1:
            raise ValueError(f"joint_size is {self.joint_size}: give a width of 1 or more, or leave it out")
        if self.contrast != "mil_nce" and self.mil_candidates is not None:
            raise ValueError(
                f"mil_candidates is {self.mil_candidates}, but the contrast is {self.contrast!r}: leave it out, or "
                "choose mil_nce"
            )
        if self.contrast == "mil_nce":
            self.mil_candidates = MIL_CANDIDATES if self.mil_candidates is None else self.mil_candidates
            if self.mil_candidates < 1 or self.mil_candidates % 2 == 0:
                raise ValueError(
                    f"mil_candidates is {self.mil_candidates}: give an odd number such as {MIL_CANDIDATES}, the "
                    "clip's own text and as many before as after it"
                )
        super().__post_init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        """Vocabulary size V of the text encoder."""
        return self.text_config.vocab_size

    @property
    def hidden_size(self) -> int:
        """Width H of the text encoder."""
        return self.text_config.hidden_size


def video_config_like(text_config, feature_size: int) -> VidLanKDVideoConfig:
    """Returns the configuration of a video encoder with the shape of the text encoder (VidLanKD, section 4.1).

    Args:
        text_config: Configuration of the text encoder.
        feature_size: Width F of the video features.
    """
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    dropout = ("hidden_dropout_prob", "attention_probs_dropout_prob")  # ModernBERT has other names
    fields = {name: getattr(text_config, name) for name in (*shape, *dropout) if hasattr(text_config, name)}
    return VidLanKDVideoConfig(feature_size=feature_size, **fields)
