"""The teacher: a BERT-like text encoder and a video encoder, trained together on captioned video.

[`load_teacher`](#vidlankd_hf.models.load_teacher.load_teacher) also loads other models as teachers.
"""

import inspect
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import ModelOutput

from .attention import key_mask
from .configuration import VidLanKDTeacherConfig, video_config_like
from .contrast import MILNCEContrast, VideoTextContrast
from .heads import masked_logits, mlm_loss
from .loading import gathered_parameters
from .video_encoder import VideoEncoder

# What transformers calls the part of a multimodal model that reads text.
TEXT_PARTS = ("text_model", "language_model", "text_encoder", "text_encoder_model", "text_decoder")
REMEDY = (
    "give a VidLanKDTeacher, a text encoder (BERT, T5), a language model (Llama), or a multimodal model with one "
    "of these (CLIP, SigLIP, FLAVA, LLaVA, Qwen-VL)"
)


@dataclass
class VidLanKDTeacherOutput(ModelOutput):
    """Output of a teacher. J is `joint_size`, or H if there is no joint space.

    Args:
        loss: Sum of `losses`; `None` if the inputs allow no loss.
        losses: The loss components by name. [`VidLanKDTeacher.loss_terms`] says what each is a mean over.
        logits: `[B, M, V]` logits of the MLM head at the masked positions, if these were given.
        last_hidden_state: `[B, L, H]` raw token states.
        hidden_states: `[B, L, H]` of the embeddings and of each layer, if requested.
        text_embeds: `[B, J]` mean of the unit vectors of a sentence's real tokens. Its dot product with a row of
            `video_embeds` is the mean similarity between the sentence's tokens and the clip.
        video_embeds: `[B, J]` unit vectors of the clips.
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    text_embeds: Tensor | None = None
    video_embeds: Tensor | None = None


class VidLanKDTeacher(PreTrainedModel):
    """A text encoder with an MLM head and a video encoder, trained with video-text contrast and MLM.

    Source: VidLanKD (arXiv 2107.02681), eq. 1 to 3.

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
    _keep_in_fp32_modules_strict = {"feature_mean", "feature_std"}

    def __init__(self, config: VidLanKDTeacherConfig):
        super().__init__(config)
        # AutoModelForMaskedLM.from_config would shard this part under ZeRO-3 before its weights are initialized.
        self.text_model = MODEL_FOR_MASKED_LM_MAPPING[type(config.text_config)](config.text_config)
        self.video_encoder, self.text_projection, joint_size = None, None, config.joint_size
        if "contrast" in config.losses:
            self.video_encoder = VideoEncoder(config.video_config, output_size=joint_size or config.hidden_size)
            if config.contrast == "mil_nce":
                self.contrast = MILNCEContrast(config.temperature)
            else:
                self.contrast = VideoTextContrast(config.contrast, config.margin, config.temperature)
            if joint_size:
                width = config.hidden_size
                self.text_projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, joint_size))
        if "mlm" not in config.losses:  # DDP refuses parameters without gradients
            encoder = set(self.text_model.base_model.parameters())
            for parameter in set(self.text_model.parameters()) - encoder:
                parameter.requires_grad_(False)
        self.post_init()

    @property
    def loss_terms(self) -> dict[str, tuple[float, str]]:
        """Maps the name of each loss component to its weight and what it is a mean over."""
        unit = "sequences" if self.config.contrast == "mil_nce" else "tokens"
        terms = {"contrast": (1.0, unit), "mlm": (1.0, "masked_tokens")}
        return {name: term for name, term in terms.items() if name in self.config.losses}

    @classmethod
    def from_text_pretrained(cls, text_model: str, feature_size: int, video_layers: int | None = None, **config):
        """Creates a teacher with a pretrained text encoder and a randomly initialized video encoder.

        Args:
            text_model: Hub id or folder of a BERT-like encoder, with or without an MLM head.
            feature_size: Width F of the video features.
            video_layers: Number of layers of the video encoder. Default: as many as the text encoder has.
            config: Further fields of [`VidLanKDTeacherConfig`], such as `contrast`.
        """
        text = AutoModelForMaskedLM.from_pretrained(text_model, dtype=torch.float32, trust_remote_code=False)
        if Path(text_model).is_dir():  # keeps absolute paths of this machine out of the teacher's config.json
            text.config._name_or_path = f"./{Path(text_model).resolve().name}"
        video = video_config_like(text.config, feature_size)
        if video_layers is not None:
            video.num_hidden_layers = video_layers
        teacher = cls(VidLanKDTeacherConfig(text_config=text.config, video_config=video, **config))
        with gathered_parameters(text):
            teacher.text_model.load_state_dict(text.state_dict())
        return teacher

    def set_feature_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Sets the mean and standard deviation with which the video encoder standardizes features.

        Args:
            mean: `[F]`, from `FeatureStore.statistics`.
            std: `[F]`. Features that do not vary are centered but not scaled.
        """
        self.video_encoder.feature_mean.copy_(mean)
        self.video_encoder.feature_std.copy_(torch.where(std > 1e-6, std, 1.0))

    def get_input_embeddings(self):
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.text_model.set_input_embeddings(value)

    def get_output_embeddings(self):
        return self.text_model.get_output_embeddings()

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs) -> Tensor:
        """Returns the raw last hidden states of texts.

        Args:
            input_ids: `[B, L]`.
            attention_mask: `[B, L]`, 1 for real tokens. Default: all tokens are real.
            kwargs: Further arguments of the text encoder.

        Returns:
            Token states `[B, L, H]`.
        """
        return self._encode(input_ids, attention_mask, **kwargs).last_hidden_state

    def _encode(self, input_ids: Tensor, attention_mask: Tensor | None, **kwargs):
        mask = key_mask(attention_mask, self.config.text_config)
        return self.text_model.base_model(input_ids=input_ids, attention_mask=mask, **kwargs)

    def unit_tokens(self, states: Tensor) -> Tensor:
        """Maps token `states [B, L, H]` to unit vectors `[B, L, J]`, which are comparable to those of clips."""
        states = states if self.text_projection is None else self.text_projection(states)
        with torch.autocast(states.device.type, enabled=False):
            return F.normalize(states.float(), dim=-1)

    def _candidate_vectors(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Returns the vectors `[B, N - 1, J]` of texts `[B, N - 1, L]`; `text_embeds` are those of the clips' own."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = self.encode_text(input_ids.flatten(0, 1), None if attention_mask is None else mask.flatten(0, 1))
        return token_means(self.unit_tokens(states), mask.flatten(0, 1)).view(*input_ids.shape[:2], -1)

    def encode_video(self, video_features: Tensor, video_mask: Tensor | None = None) -> Tensor:
        """Maps clips to unit vectors.

        Args:
            video_features: `[B, T, F]`.
            video_mask: `[B, T]`, 1 for real steps. Default: all steps are real.

        Returns:
            Unit vectors `[B, J]`.

        Raises:
            ValueError: This teacher has no video encoder.
        """
        if self.video_encoder is None:
            raise ValueError("this teacher has no video encoder, since it was created with losses='mlm'")
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
        candidate_input_ids: Tensor | None = None,
        candidate_attention_mask: Tensor | None = None,
        candidate_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> VidLanKDTeacherOutput:
        """Encodes texts and, if given, clips, and computes the losses that the inputs allow.

        Args:
            input_ids: `[B, L]`, masked for training.
            attention_mask: `[B, L]`, 1 for real tokens. Default: all tokens are real.
            video_features: `[B, T, F]`, for the contrast.
            video_mask: `[B, T]`, 1 for real steps. Default: all steps are real.
            video_ids: `[B]`, equal for windows of the same video. Default: all are different.
            masked_positions: `[B, M]` indices into L at which the MLM head runs; any index in unused slots.
            masked_labels: `[B, M]` token ids at the masked positions, -100 in unused slots; for the MLM loss.
            candidate_input_ids: `[B, N - 1, L]`, the texts around each clip, for the contrast `"mil_nce"`. Default:
                none, so that a clip's own text is the only positive.
            candidate_attention_mask: `[B, N - 1, L]`, 1 for real tokens. Default: all tokens are real.
            candidate_mask: `[B, N - 1]`, 1 for real texts; 0 where a video has no further text.
            output_hidden_states: Also return the states of the embeddings and of each layer.
            return_dict: Ignored; the output is always a [`VidLanKDTeacherOutput`].
        """
        encoded = self._encode(input_ids, attention_mask, output_hidden_states=output_hidden_states)
        states = encoded.last_hidden_state
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        output = VidLanKDTeacherOutput(last_hidden_state=states, hidden_states=encoded.hidden_states, losses={})
        if video_features is not None:
            if video_ids is None:
                video_ids = torch.arange(len(input_ids), device=input_ids.device)
            output.video_embeds, tokens = self.encode_video(video_features, video_mask), self.unit_tokens(states)
            output.text_embeds = token_means(tokens, attention_mask)
            if self.config.contrast == "mil_nce":
                texts, real = output.text_embeds[:, None], torch.ones_like(video_ids)[:, None]
                if candidate_input_ids is not None:
                    others = self._candidate_vectors(candidate_input_ids, candidate_attention_mask)
                    texts, real = torch.cat([texts, others], 1), torch.cat([real, candidate_mask], 1)
            else:
                texts, real = tokens, attention_mask
            with torch.autocast(states.device.type, enabled=False):
                output.losses["contrast"] = self.contrast(texts, output.video_embeds, real, video_ids)
        if masked_positions is not None:
            output.logits = masked_logits(self.text_model, states, masked_positions)
            if masked_labels is not None:
                output.losses["mlm"] = mlm_loss(output.logits, masked_labels)
        if output.losses:
            output.loss = sum(self.loss_terms[name][0] * value for name, value in output.losses.items())
        return output


def token_means(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of token `states [B, L, J]` over the real tokens in `mask [B, L]`, computed in float32."""
    with torch.autocast(states.device.type, enabled=False):
        weights = mask.float()[..., None]
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def check_path(path: str | Path, what: str) -> None:
    """Checks that there is a model, if `path` looks like a path and not like a Hub id.

    Otherwise transformers would take it for a Hub id and fail after several requests, or name a missing tokenizer.

    Args:
        path: Hub id or folder.
        what: What the folder should hold, for the message.

    Raises:
        ValueError: The folder does not exist, or holds no model.
    """
    text = str(path)
    is_path = text.startswith((".", "/", "~")) or text.count("/") > 1 or ("/" in text and Path(text).parent.exists())
    if is_path and not Path(text).exists():
        raise ValueError(f"{text} does not exist: give the folder of {what}, or a Hub id such as owner/name")
    if Path(text).is_dir() and not Path(text, "config.json").is_file():
        raise ValueError(
            f"{text} has no config.json: give the folder of {what}. A run that has not finished has no model yet; "
            "start its command again"
        )
    if Path(text).is_dir():
        try:
            valid = isinstance(json.loads(Path(text, "config.json").read_text(encoding="utf-8")), dict)
        except (ValueError, RecursionError):
            valid = False
        if not valid:
            raise ValueError(f"{Path(text, 'config.json')} is damaged: restore it, or give another folder of {what}")


def text_part(model: PreTrainedModel) -> PreTrainedModel:
    """Returns the innermost part of a model that encodes text: a text encoder or a language model without its head.

    For an encoder-decoder this is its encoder, and for a model without such a part the model itself.
    """
    while not isinstance(model, VidLanKDTeacher):
        candidates = [model.base_model, *(getattr(model, name, None) for name in TEXT_PARTS)]
        if getattr(model.config, "is_encoder_decoder", False):
            candidates.append(model.get_encoder())
        elif hasattr(model, "lm_head"):  # Llama 4's language model does not say which part is its base model
            candidates.append(getattr(model, "model", None))
        inner = next((part for part in candidates if isinstance(part, PreTrainedModel) and part is not model), None)
        if inner is None:
            break
        model = inner
    return model


def check_text_encoder(model) -> None:
    """Checks that a model can be a teacher, that is, returns `last_hidden_state [B, L, H]` given only `input_ids`.

    Raises:
        ValueError: The model reads no text, or only a part of it does; the message names that part.
    """
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"the teacher is a {type(model).__name__}, not a model of transformers: {REMEDY}")
    inner = text_part(model)
    if "input_ids" not in inspect.signature(inner.forward).parameters:
        raise ValueError(f"the teacher is a {type(model).__name__}, which reads no text: {REMEDY}")
    if inner is not model:
        name = next(name for name, module in model.named_modules() if module is inner)
        raise ValueError(
            f"the teacher is a {type(model).__name__}, of which only a part encodes text: give that part, "
            f"model.{name}, or load the teacher with load_teacher"
        )


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Returns the configuration of a teacher's text encoder, which is `config` itself for a plain text encoder."""
    return config.get_text_config()
