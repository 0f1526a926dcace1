"""Frozen vision backbones: map each image or clip to one feature vector."""

import hashlib
import inspect
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel

from ..utils.loading import loading
from ..utils.messages import number_of
from .pixels import resized
from .processors import REMEDY, load_processor, pixel_settings
from .streams import Stream

PIXEL_TOLERANCE = 0.1  # of normalized values, since resizing libraries round differently
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Backbone:
    """The frozen backbone of one stream.

    Args:
        stream: The stream, which names the model and the number of frames per clip.
        device: Device of the model.
        precision: `"fp32"`, `"bf16"` or `"fp16"`, for weights and computation.

    Attributes:
        pixels: Settings of the model's image processor, from [`pixel_settings`].
        width: Feature width F.
        settings: Everything that the features depend on: model, sha256 of its weights, pixels, rates and precision.

    Raises:
        ValueError: Unknown precision, the backbone takes another number of frames or other inputs than pictures, or
            its image processor is not supported.
    """

    def __init__(self, stream: Stream, device: str | torch.device, precision: str = "fp32"):
        if precision not in PRECISIONS:
            raise ValueError(f"Unknown precision {precision!r}. Choose one of {', '.join(PRECISIONS)}.")
        self.stream, self.device, self.dtype = stream, torch.device(device), PRECISIONS[precision]
        model = _load_model(stream.model)
        check_clip_length(model.config, stream)
        processor = load_processor(stream.processor or stream.model)
        self.pixels = pixel_settings(processor)
        if callable(processor):
            check_pixels(processor, stream)
        self.settings: dict[str, Any] = {
            "model": stream.model,
            "weights": _sha256(model),
            "pixels": self.pixels,
            "frame_rate": stream.rate,
            "rate": stream.rate / stream.clip_length,
            "clip_length": stream.clip_length,
            "precision": precision,
        }
        self.model = model.to(self.device, self.dtype)
        size = self.pixels["crop"] or self.pixels["size"]
        height, width = size if isinstance(size, list) else (size or 224,) * 2
        try:
            self.width = self(np.zeros((1, stream.clip_length, height, width, 3), np.uint8)).shape[1]
        except Exception as error:  # a model may fail in any way on pictures that it was not made for
            raise ValueError(
                f"{stream.model} ({model.config.model_type}) gives no features for "
                f"{number_of(stream.clip_length, 'frame')} of "
                f"{height} x {width}: {type(error).__name__}: {error}. {REMEDY}"
            ) from error

    @torch.inference_mode()
    def __call__(self, clips: np.ndarray) -> torch.Tensor:
        """Computes features `[B, F]` in float16 from clips `[B, frames, H, W, 3]` uint8.

        On a GPU, the features are still being computed when this returns.
        """
        pixels = torch.from_numpy(clips)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        pixels = normalized(pixels, self.pixels, self.dtype)
        return pooled_output(self.model, pixels[:, 0] if self.stream.clip_length == 1 else pixels).half()


def normalized(pixels: torch.Tensor, settings: dict[str, Any], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Rescales and normalizes pixels `[..., H, W, 3]` uint8 in float32, and returns `[..., 3, H, W]` in `dtype`."""
    mean = torch.tensor(settings["mean"], device=pixels.device)
    std = torch.tensor(settings["std"], device=pixels.device)
    if settings.get("reverse_channels"):
        pixels = pixels.flip(-1)
    return pixels.float().mul_(settings["scale"]).sub_(mean).div_(std).to(dtype).movedim(-1, -3)


def to_pixel_values(images: np.ndarray | list[np.ndarray], processor) -> torch.Tensor:
    """Preprocesses images as an image processor would.

    Args:
        images: `[N, height, width, 3]` uint8; in a list, each may have another size.
        processor: An `AutoImageProcessor`. Only its settings are used, its code does not run.

    Returns:
        `[N, 3, H, W]` float32.

    Raises:
        ValueError: The processor's kind of resizing is not supported.
    """
    settings = pixel_settings(processor)
    if isinstance(images, np.ndarray):
        pixels = np.ascontiguousarray(resized(images, settings))
    else:
        pixels = np.stack([resized(image, settings) for image in images])
    return normalized(torch.from_numpy(pixels), settings)


def check_pixels(processor, stream: Stream) -> None:
    """Checks on one image that [`to_pixel_values`] does the same as the image processor.

    Raises:
        ValueError: The processor also changes images in some other manner.
    """
    across, down = np.meshgrid(np.linspace(0, 255, 320), np.linspace(0, 255, 240))
    image = np.stack([across, down, np.full_like(down, 64)], axis=-1).astype(np.uint8)
    images = image if stream.clip_length == 1 else [image] * stream.clip_length
    ours = to_pixel_values([image], processor)[0]
    outputs = processor(images, return_tensors="pt")
    theirs = outputs.get("pixel_values", outputs.get("pixel_values_videos")).flatten(0, -4)[0]
    difference = (theirs - ours).abs().max().item() if theirs.shape == ours.shape else float("inf")
    if not difference < PIXEL_TOLERANCE:
        raise ValueError(
            f"The {type(processor).__name__} of {stream.model} preprocesses images in an unsupported manner "
            f"(values differ by {difference:.2f}). {REMEDY}"
        )


def check_clip_length(config: Any, stream: Stream) -> None:
    """Checks that the backbone takes clips as long as the stream's.

    Raises:
        ValueError: It takes another number of frames.
    """
    configs = [config, *filter(None, (getattr(config, name, None) for name in ("vision_config", "video_config")))]
    takes = next((held.num_frames for held in configs if getattr(held, "num_frames", None)), 1)
    fits, allowed = stream.clip_length == takes, number_of(takes, "frame")
    if getattr(config, "frames_per_clip", None):  # V-JEPA 2 has rotary positions, for any number of tubelets
        allowed = f"a multiple of {config.tubelet_size} frames (it was trained with {config.frames_per_clip})"
        fits = stream.clip_length % config.tubelet_size == 0
    if not fits:
        kind = "image" if stream.clip_length == 1 else f"{stream.clip_length}-frame video"
        raise ValueError(
            f"{stream.model} takes {allowed}, but the {stream.name!r} stream has clips of {stream.clip_length}. "
            f"Choose a backbone for {kind} input."
        )


def pooled_output(model: torch.nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """Computes one feature vector per image or clip.

    Args:
        model: A vision backbone from `AutoModel`. For a dual encoder like CLIP, the image projection is used; for
            X-CLIP, its clip representation.
        pixel_values: `[B, 3, H, W]`, or `[B, frames, 3, H, W]` for a video backbone.

    Returns:
        `[B, F]`: the `pooler_output`, or if there is none, the mean of `last_hidden_state` over tokens or space.

    Raises:
        ValueError: The backbone has neither.
    """
    encode = getattr(model, "get_video_features" if pixel_values.ndim == 5 else "get_image_features", model.forward)
    parameters = inspect.signature(encode).parameters
    name = "pixel_values_videos" if "pixel_values_videos" in parameters else "pixel_values"
    options = {"skip_predictor": True} if "skip_predictor" in parameters else {}  # V-JEPA 2's predictor is not used
    output = encode(**{name: pixel_values}, **options)
    pooled, states = getattr(output, "pooler_output", None), getattr(output, "last_hidden_state", None)
    if isinstance(pooled, torch.Tensor):
        return pooled.mean(dim=1) if pooled.ndim == 3 else pooled.flatten(1)
    if not isinstance(states, torch.Tensor):
        raise ValueError("it returns neither a pooler_output nor a last_hidden_state")
    return states.mean(dim=1) if states.ndim == 3 else states.flatten(2).mean(dim=2)


def _load_model(name: str) -> Any:
    try:
        with loading(name):
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            if getattr(config, "mask_ratio", None):
                config.mask_ratio = 0.0  # ViT MAE would hide random patches
            model = AutoModel.from_pretrained(name, config=config, dtype=torch.float32, trust_remote_code=False)
            return model.eval()
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} needs a library that is not installed: {reason}") from error


def _sha256(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
