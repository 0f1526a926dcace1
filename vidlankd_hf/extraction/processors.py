"""Reads the image and video processors of backbones as settings, which the decoding children apply."""

import math
from types import SimpleNamespace
from typing import Any

from PIL import Image
from transformers import AutoImageProcessor, AutoVideoProcessor
from transformers.models.auto.image_processing_auto import get_image_processor_config
from transformers.models.auto.video_processing_auto import get_video_processor_config
from transformers.utils import is_torchvision_available

from ..utils.loading import loading

# Processors whose classes need torchvision, though they only resize, crop, rescale and normalize. Without torchvision,
# the values in preprocessor_config.json or video_preprocessor_config.json are applied.
PLAIN = {"DINOv3ViTImageProcessor", "VJEPA2VideoProcessor", "VideoMAEVideoProcessor", "TimesformerVideoProcessor",
         "VivitVideoProcessor", "LlavaOnevisionVideoProcessor"}  # fmt: skip
REMEDY = (
    "Choose another backbone, or give another image processor with --processors STREAM=FOLDER, a folder with a "
    "preprocessor_config.json."
)


def load_processor(name: str) -> Any:
    """Loads the image processor of a backbone, or its video processor if it has no image processor.

    Args:
        name: Hub id or folder of the backbone.

    Returns:
        The processor. If its class needs torchvision and that is not installed: an object that is not callable and
        has the settings as attributes.

    Raises:
        ValueError: There is no processor, or it needs a library that is not installed.
    """
    with loading(name):
        image = get_image_processor_config(name)
        fields = image or get_video_processor_config(name)
    kind = _plain_name(fields.get("image_processor_type") or fields.get("video_processor_type") or "")
    if kind in PLAIN and not is_torchvision_available():
        return SimpleNamespace(**fields, kind=kind)
    auto = AutoVideoProcessor if fields and not image else AutoImageProcessor
    try:
        return auto.from_pretrained(name, trust_remote_code=False)
    except (ImportError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"The image processor of {name} cannot be loaded: {reason}. {REMEDY}") from error


def pixel_settings(processor: Any) -> dict[str, Any]:
    """Reads from a processor's settings what it does, without running its code.

    Args:
        processor: Output of [`load_processor`].

    Returns:
        A dict with the keys `size` (`[height, width]`, the length of the shorter side, or `None` for no resizing),
        `resample` (a Pillow filter), `crop` (`[height, width]` or `None`), `scale`, `mean` and `std`, and where they
        are needed `reverse_channels` (to BGR) and `round_crop` (crops are placed as torchvision does).

    Raises:
        ValueError: The processor's kind of resizing is not supported.
    """
    if hasattr(processor, "data_config"):
        return _timm_settings(processor.data_config)
    kind = getattr(processor, "kind", _plain_name(type(processor).__name__))
    if hasattr(processor, "merge_size") or hasattr(processor, "max_num_patches"):
        raise ValueError(
            f"{kind} cuts a picture into a number of patches that depends on its size, but features need a fixed "
            "resolution. Choose a backbone with a fixed resolution, such as google/siglip2-base-patch16-224."
        )
    crop: Any = _size(_field(processor, "crop_size")) if getattr(processor, "do_center_crop", None) else None
    size: Any = None
    if _field(processor, "do_resize"):
        size, crop = _resizing(processor, kind, crop)
    scales, normalizes = _field(processor, "do_rescale"), getattr(processor, "do_normalize", None)
    resample = getattr(processor, "resample", None)
    mean = list(_field(processor, "image_mean")) if normalizes else [0.0] * 3
    std = list(_field(processor, "image_std")) if normalizes else [1.0] * 3
    if getattr(processor, "offset", False) or getattr(processor, "rescale_offset", False):  # ViViT's, EfficientNet's
        mean = [value + 1.0 for value in mean]
    if getattr(processor, "include_top", False):  # EfficientNet's processor divides by the deviation again
        std = [value * other for value, other in zip(std, processor.image_std)]
    settings = {
        "size": size,
        "resample": int(Image.Resampling.BILINEAR if resample is None else resample),
        "crop": [crop, crop] if isinstance(crop, int) else crop,
        "scale": _field(processor, "rescale_factor") if scales else 1.0,
        "mean": mean,
        "std": std,
    }
    return {**settings, **({"reverse_channels": True} if getattr(processor, "do_flip_channel_order", False) else {})}


def _resizing(processor: Any, kind: str, crop: Any) -> tuple[Any, Any]:
    """Returns size and crop, which some processors derive from one setting."""
    size, crop_pct = _size(_field(processor, "size")), getattr(processor, "crop_pct", None)
    if kind == "LevitImageProcessor":
        size = int(256 / 224 * size) if isinstance(size, int) else size
    elif kind == "PoolFormerImageProcessor" and crop_pct is not None:
        edges = {size} if isinstance(size, int) else {*size}
        if len(edges) > 1:
            raise ValueError(f"{kind} has size {size} with crop_pct, but the sides must be equal. {REMEDY}")
        size = int(edges.pop() / crop_pct)
    elif crop_pct is not None:  # ConvNeXT's and ResNet's processors
        edge = processor.size["shortest_edge"]
        size, crop = (int(edge / crop_pct), [edge, edge]) if edge < 384 else ([edge, edge], crop)
    return size, crop


def _timm_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a timm model's evaluation transform (`timm.data.create_transform`)."""
    _, height, width = config["input_size"]
    mode, scaled = config["crop_mode"], [math.floor(side / config["crop_pct"]) for side in (height, width)]
    if mode != "squash" and (mode != "center" or height != width):
        raise ValueError(
            f"timm's crop_mode {mode!r} with input_size {config['input_size']} is not supported. {REMEDY}"
        )
    return {
        "size": scaled if mode == "squash" else scaled[0],
        "resample": int(getattr(Image.Resampling, config["interpolation"].upper())),
        "crop": [height, width],
        "scale": 1 / 255,
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "round_crop": True,
    }


def _field(processor: Any, name: str) -> Any:
    if not hasattr(processor, name):
        raise ValueError(f"The image processor has no setting {name!r}. {REMEDY}")
    return getattr(processor, name)


def _plain_name(kind: str) -> str:
    """Returns a class name without its implementation's suffix; `...FeatureExtractor` becomes `...ImageProcessor`."""
    return kind.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")


def _size(size: Any) -> list[int] | int:
    """Returns [height, width], or the length of the shorter side, from a size setting of an image processor."""
    if isinstance(size, int):
        return [size, size]
    if size.get("height") and size.get("width"):
        return [size["height"], size["width"]]
    if size.get("shortest_edge") and not size.get("longest_edge"):
        return size["shortest_edge"]
    raise ValueError(
        f"The backbone's image processor has size {size}, but needs {{'height', 'width'}} or {{'shortest_edge'}}. "
        f"{REMEDY}"
    )
