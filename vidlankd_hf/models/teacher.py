"""The teacher: a BERT-like text encoder and a video encoder, trained together on captioned video."""

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.utils import ModelOutput, logging

from .attention import key_mask
from .configuration import VidLanKDTeacherConfig, VidLanKDVideoConfig
from .heads import masked_logits, mlm_loss
from .losses import VideoTextContrast
from .video_encoder import VideoEncoder


@dataclass
class VidLanKDTeacherOutput(ModelOutput):
    """What one batch gives.

    Args:
        loss: Sum of `losses`; `None` without masked positions and video.
        losses: The components by name, each a mean over its own items (see [`VidLanKDTeacher.loss_terms`]).
        logits: `[B, M, V]` of the language-model head at the masked positions, where these were given.
        last_hidden_state: `[B, L, H]` raw token states.
        text_embeds: `[B, J]` mean over real tokens of their unit vectors: its product with `video_embeds` is the mean
            similarity of a sentence's tokens to a clip. J is H, or `joint_size`.
        video_embeds: `[B, J]` unit vectors.
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    text_embeds: Tensor | None = None
    video_embeds: Tensor | None = None


class VidLanKDTeacher(PreTrainedModel):
    """Text encoder with MLM head, and a video encoder, trained by `contrast + MLM` (VidLanKD, eq. 1 to 3).

    Example:

        teacher = VidLanKDTeacher.from_pretrained("outputs/teacher")
        states = teacher.encode_text(**tokenizer(["now take the dax"], return_tensors="pt"))  # [1, L, H]
    """

    config_class = VidLanKDTeacherConfig
    base_model_prefix = "teacher"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    main_input_name = "input_ids"

    def __init__(self, config: VidLanKDTeacherConfig):
        super().__init__(config)
        # Not AutoModelForMaskedLM.from_config: under ZeRO-3 it would shard this part before its weights are drawn.
        self.text_model = MODEL_FOR_MASKED_LM_MAPPING[type(config.text_config)](config.text_config)
        self.video_encoder, self.text_projection, joint_size = None, None, config.joint_size
        if "contrast" in config.losses:
            self.video_encoder = VideoEncoder(config.video_config, output_size=joint_size or config.hidden_size)
            self.contrast = VideoTextContrast(config.contrast, config.margin, config.temperature)
            if joint_size:
                width = config.hidden_size
                self.text_projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, joint_size))
        if "mlm" not in config.losses:  # a head that nothing trains gets no gradient, which DDP refuses
            encoder = set(self.text_model.base_model.parameters())
            for parameter in set(self.text_model.parameters()) - encoder:
                parameter.requires_grad_(False)
        self.post_init()

    @property
    def loss_terms(self) -> dict[str, tuple[float, str]]:
        """Name of each component -> its weight and what it is a mean over."""
        terms = {"contrast": (1.0, "tokens"), "mlm": (1.0, "masked_tokens")}
        return {name: term for name, term in terms.items() if name in self.config.losses}

    @classmethod
    def from_text_pretrained(cls, text_model: str, feature_size: int, video_layers: int | None = None, **config):
        """A teacher whose text encoder starts from a pretrained BERT-like model; its video encoder starts anew.

        Args:
            text_model: Hub id or folder of a BERT-like encoder, with or without a masked-language-model head.
            feature_size: Width F of the video features.
            video_layers: Layers of the video encoder; as many as the text encoder's if not given.
            config: Further fields of [`VidLanKDTeacherConfig`], such as `contrast`.
        """
        text = AutoModelForMaskedLM.from_pretrained(text_model, dtype=torch.float32)
        if Path(text_model).is_dir():  # transformers would write the machine's path into the teacher's config.json
            text.config._name_or_path = f"./{Path(text_model).resolve().name}"
        video = video_config_like(text.config, feature_size)
        if video_layers is not None:
            video.num_hidden_layers = video_layers
        teacher = cls(VidLanKDTeacherConfig(text_config=text.config, video_config=video, **config))
        with gathered_parameters(text):
            teacher.text_model.load_state_dict(text.state_dict())
        return teacher

    def set_feature_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Standardises video features by these `mean` and `std`, both `[F]` (see `FeatureStore.statistics`)."""
        self.video_encoder.feature_mean.copy_(mean)
        # A feature that never varied in the sample is only centred.
        self.video_encoder.feature_std.copy_(torch.where(std > 1e-6, std, 1.0))

    def get_input_embeddings(self):
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.text_model.set_input_embeddings(value)

    def get_output_embeddings(self):
        return self.text_model.get_output_embeddings()

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs) -> Tensor:
        """Raw last hidden states `[B, L, H]` of `input_ids [B, L]`."""
        return self.text_model.base_model(
            input_ids=input_ids, attention_mask=key_mask(attention_mask, self.config.text_config), **kwargs
        ).last_hidden_state

    def unit_tokens(self, states: Tensor) -> Tensor:
        """Unit vectors `[B, L, J]` of token `states [B, L, H]`, to compare with [`encode_video`]'s."""
        states = states if self.text_projection is None else self.text_projection(states)
        with torch.autocast(states.device.type, enabled=False):
            return F.normalize(states.float(), dim=-1)

    def encode_video(self, video_features: Tensor, video_mask: Tensor | None = None) -> Tensor:
        """Unit vectors `[B, J]` of clips `video_features [B, T, F]` with `video_mask [B, T]` (all real if `None`).

        Raises:
            ValueError: This teacher was trained on text alone.
        """
        if self.video_encoder is None:
            raise ValueError("this teacher has no video encoder: it was trained with losses='mlm', on text alone")
        if video_mask is None:
            video_mask = torch.ones(video_features.shape[:2], dtype=torch.long, device=video_features.device)
        return self.video_encoder(video_features, video_mask)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        video_features: Tensor | None = None,
        video_mask: Tensor | None = None,
        video_ids: Tensor | None = None,
        masked_positions: Tensor | None = None,
        masked_labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> VidLanKDTeacherOutput:
        """States of text, and of video where given, with the losses that the inputs allow.

        Args:
            input_ids: `[B, L]`, masked for training.
            attention_mask: `[B, L]`, 1 for real tokens; all are if not given.
            video_features: `[B, T, F]`.
            video_mask: `[B, T]`, 1 for real steps.
            video_ids: `[B]`, equal for windows of one video; all different if not given.
            masked_positions: `[B, M]` indices into L where the language-model head runs; unused places hold any index.
            masked_labels: `[B, M]` token ids there, -100 in unused places; without them there is no MLM loss.
        """
        states = self.encode_text(input_ids, attention_mask)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        output = VidLanKDTeacherOutput(last_hidden_state=states, losses={})
        if video_features is not None:
            if video_ids is None:
                video_ids = torch.arange(len(input_ids), device=input_ids.device)
            output.video_embeds, tokens = self.encode_video(video_features, video_mask), self.unit_tokens(states)
            with torch.autocast(states.device.type, enabled=False):
                weights = attention_mask.float()[..., None]
                output.text_embeds = (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)
                output.losses["contrast"] = self.contrast(tokens, output.video_embeds, attention_mask, video_ids)
        if masked_positions is not None:
            output.logits = masked_logits(self.text_model, states, masked_positions)
            if masked_labels is not None:
                output.losses["mlm"] = mlm_loss(output.logits, masked_labels)
        if output.losses:
            output.loss = sum(self.loss_terms[name][0] * value for name, value in output.losses.items())
        return output


def load_teacher(path: str | Path, dtype: torch.dtype | str = torch.float32) -> PreTrainedModel:
    """A teacher from a folder or Hub id. A student can learn the token states of any text encoder:

    - a [`VidLanKDTeacher`] gives itself;
    - a vision-language model with a text tower of its own, `text_model` (FLAVA, ALIGN, ...), gives this tower; the
      other weights are not loaded;
    - a text encoder (BERT, or a tower that was saved alone) gives itself, without a language-model head.

    Raises:
        ValueError: For a folder that does not exist, another kind of model, or a checkpoint that lacks weights of the
            text encoder.
    """
    check_path(path, "the teacher")
    config = AutoConfig.from_pretrained(path)
    model_class, options = None, {}
    if config.model_type.endswith("_text_model") and config.architectures:  # AutoModel knows few towers
        model_class = getattr(transformers, config.architectures[0], None)
    elif isinstance(config, VidLanKDTeacherConfig) or type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        model_class = AutoModel
    elif hasattr(config, "text_config") and type(config) in MODEL_MAPPING:
        with torch.device("meta"):  # which class the tower is, without weights
            whole = MODEL_MAPPING[type(config)](config)
        if hasattr(whole, "text_model"):
            model_class = type(whole.text_model)
            options = {"config": config.text_config, "key_mapping": {r"^(.*\.)?text_model\.": ""}}
    if model_class is None:
        raise ValueError(
            f"{path} is a {config.model_type} model: give a VidLanKDTeacher, a vision-language model with a text "
            "tower (FLAVA, ALIGN), or a text encoder like BERT"
        )
    with _only_errors():  # that all but the text encoder is left aside is meant so
        teacher, info = model_class.from_pretrained(path, dtype=dtype, output_loading_info=True, **options)
    check_text_encoder(teacher)
    missing = [key for key in info["missing_keys"] if "pooler." not in key]
    if missing:
        raise ValueError(f"{path} lacks weights of its text encoder, such as {min(missing)}: save the whole model")
    return teacher


def check_path(path: str | Path, what: str) -> None:
    """Raises a `ValueError` if `path`, of `what`, is written like a path but nothing is there.

    Otherwise transformers would take it for a Hub id, and fail after several requests.
    """
    text = str(path)
    is_path = text.startswith((".", "/", "~")) or text.count("/") > 1 or ("/" in text and Path(text).parent.exists())
    if is_path and not Path(text).exists():
        raise ValueError(f"{text} does not exist: give the folder of {what}, or a Hub id such as owner/name")


def check_text_encoder(model) -> None:
    """Raises a `ValueError` if `model` is no teacher: it must give `last_hidden_state [B, L, H]` of `input_ids`."""
    if isinstance(model, VidLanKDTeacher):
        return
    if not isinstance(model, PreTrainedModel) or model.main_input_name != "input_ids":
        remedy = "give a VidLanKDTeacher or a text encoder"
    elif hasattr(model, "text_model"):
        remedy = "give its text tower, model.text_model"
    elif model.base_model is not model:
        remedy = "give the encoder inside, model.base_model"
    elif getattr(model.config, "is_encoder_decoder", False) or hasattr(model.config, "text_config"):
        remedy = "give a model of text that only encodes"
    else:
        return
    raise ValueError(f"the teacher is a {type(model).__name__}, which gives no states of text tokens alone: {remedy}")


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of the text encoder within a teacher's `config`, which may be the same."""
    return getattr(config, "text_config", config)


@contextmanager
def _only_errors():
    """Keeps transformers from listing the weights that are not used."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def gathered_parameters(model: PreTrainedModel):
    """A context in which the weights of a model loaded under ZeRO-3 are whole."""
    if not is_deepspeed_zero3_enabled():
        return nullcontext()
    # Not an import statement: transformers demands every package that one names of those who load this file as code.
    deepspeed = import_module("deepspeed")
    return deepspeed.zero.GatheredParameters(list(model.parameters()))


def video_config_like(text_config, feature_size: int) -> VidLanKDVideoConfig:
    """A video encoder of the text encoder's shape (VidLanKD, section 4.1) for features of width `feature_size`."""
    fields = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    dropout = {
        name: getattr(text_config, name)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
        if hasattr(text_config, name)  # ModernBERT, for one, has other names
    }
    shape = {name: getattr(text_config, name) for name in fields}
    return VidLanKDVideoConfig(feature_size=feature_size, **shape, **dropout)
