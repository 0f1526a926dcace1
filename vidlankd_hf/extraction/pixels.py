"""Resizes and crops images in the decoding children, with the settings of an image processor (`processors.py`).

The backbones normalize the result on the device. Resizing uses torch, as image processors do if torchvision is
installed. Without it they use Pillow, which is several times slower and rounds differently (see docs/data.md).
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

# Other filters use Pillow, since torch has no antialiased versions of them.
TORCH_FILTERS = {int(Image.Resampling.BILINEAR): "bilinear", int(Image.Resampling.BICUBIC): "bicubic"}


def resized(images: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """Resizes and crops images `[..., height, width, 3]` uint8.

    Args:
        images: One image, or any number of images of the same size.
        settings: Output of [`pixel_settings`].

    Raises:
        ValueError: The resized image is smaller than the crop.
        MemoryError: The resized image does not fit into the memory limit of this process.
    """
    size, crop = settings["size"], settings["crop"]
    height, width = images.shape[-3:-1]
    if isinstance(size, int):
        size = (size, int(size * width / height)) if height <= width else (int(size * height / width), size)
    if size is not None and tuple(size) != (height, width):
        height, width = max(1, size[0]), max(1, size[1])
        images = _resize(images, height, width, settings["resample"])
    if crop is None:
        return images
    if height < crop[0] or width < crop[1]:
        raise ValueError(f"A frame of {height} x {width} is smaller than the crop {crop} of the image processor.")
    spaces = (height - crop[0]) / 2, (width - crop[1]) / 2
    top, left = map(round if settings.get("round_crop") else int, spaces)
    return images[..., top : top + crop[0], left : left + crop[1], :]


def _resize(images: np.ndarray, height: int, width: int, resample: int) -> np.ndarray:
    shape, images = (*images.shape[:-3], height, width, 3), images.reshape(-1, *images.shape[-3:])
    if resample not in TORCH_FILTERS:
        resizing = (Image.fromarray(image).resize((width, height), resample) for image in images)
        return np.stack([np.asarray(image) for image in resizing]).reshape(shape)
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    try:
        pixels = interpolate(pixels, (height, width), mode=TORCH_FILTERS[resample], antialias=True)
    except RuntimeError as error:
        if "allocate memory" in str(error):
            raise MemoryError(f"A frame of {height} x {width} pixels does not fit into memory.") from error
        raise
    return pixels.permute(0, 2, 3, 1).numpy().reshape(shape)
